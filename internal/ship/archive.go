package ship

import (
	"context"
	"errors"
	"fmt"
	"os"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/scratch"
)

// Archive is an image on its way to hosts. The engine is asked for it once,
// when the first host lacks something of it, and its layers are files until
// Close. It is safe for concurrent use.
type Archive struct {
	engine engine.Archives
	image  engine.Image
	ref    string
	folder *scratch.Folder
	turn   chan struct{} // who reads; holds one
	saved  *saved        // nil: not read yet
}

// Open finds an image by name or ID, and makes a folder for it in dir (empty:
// the system's for temporary files). engine.ErrNotFound: the engine has no such
// image. The Archive has to be closed.
func Open(ctx context.Context, e engine.Archives, ref, dir string) (*Archive, error) {
	im, err := e.Image(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("ship image %s: %w", ref, err)
	}
	a := &Archive{engine: e, image: im, ref: ref, turn: make(chan struct{}, 1)}
	if err := a.question().check(); err != nil {
		return nil, fmt.Errorf("ship image %s: %w", ref, err)
	}
	if a.folder, err = scratch.New(dir, "conductor-ship-"); err != nil {
		return nil, fault.New(fault.ErrHost, "", "ship image %s: %w", ref, err)
	}
	return a, nil
}

// Close removes the folder. No Send may be under way.
func (a *Archive) Close() error { return a.folder.Close() }

// Image is the image, as the sender's engine knows it.
func (a *Archive) Image() engine.Image { return a.image }

// Need is how many bytes of disk the archive takes at most where it is opened.
// The layers can be twice there while they are unpacked.
func (a *Archive) Need() int64 { return a.image.Size }

func (a *Archive) question() Question { return Question{ID: a.image.ID, Layers: a.image.Layers} }

// read returns the image taken apart; the first call has the engine save it.
func (a *Archive) read(ctx context.Context) (*saved, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("ship image %s: %w", a.ref, ctx.Err())
	}
	if a.saved != nil {
		return a.saved, nil
	}
	if err := checkSpace(a.folder.Path, a.Need(), "the image's layers"); err != nil {
		return nil, fmt.Errorf("ship image %s: %w", a.ref, err)
	}
	dir, err := os.MkdirTemp(a.folder.Path, "layers-")
	if err != nil {
		return nil, fault.New(fault.ErrHost, "", "ship image %s: %w", a.ref, err)
	}
	s, err := save(ctx, a.engine, a.image.ID, dir)
	if err != nil {
		return nil, fmt.Errorf("ship image %s: %w", a.ref, errors.Join(err, os.RemoveAll(dir)))
	}
	a.saved = s
	return s, nil
}

// Sizes returns the bytes of each of the image's layers, by sum. It has the
// engine save the image, if it was not yet.
func (a *Archive) Sizes(ctx context.Context) (map[string]int64, error) {
	s, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	return s.sizes, nil
}
