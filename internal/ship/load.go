package ship

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/engine"
	"conductor/internal/fault"
)

// Load has the engine make the image. It gives the engine the layers that the
// engine lacks; where that is not enough, because the engine keeps its images
// in another way or has just lost one, all of them: what the engine has is
// taken out of it once more, and what it does not give is Missing.
func (s *Store) Load(ctx context.Context, m Manifest) (Loaded, error) {
	if err := m.check(); err != nil {
		return Loaded{}, err
	}
	what := "load image " + short(m.ID)
	if err := s.makeDir(); err != nil {
		return Loaded{}, err
	}
	images, err := s.Engine.Images(ctx)
	if err != nil {
		return Loaded{}, fmt.Errorf("%s: %w", what, err)
	}
	id := s.find(images, m.Question)
	if id == "" {
		loaded, err := s.load(ctx, m, images)
		if err != nil {
			return Loaded{}, fmt.Errorf("%s: %w", what, err)
		}
		if len(loaded.Missing) > 0 {
			return loaded, nil
		}
		id = loaded.ID
		if id != m.ID {
			if err := atomicfile.Write(s.alias(m.ID), []byte(id), 0o600); err != nil {
				return Loaded{}, fault.New(fault.ErrHost, "", "%s: %w", what, err)
			}
		}
	}
	for _, n := range m.Names {
		if err := s.Engine.Tag(ctx, id, n); err != nil {
			return Loaded{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	s.forget(m.Layers)
	return Loaded{ID: id}, nil
}

// load makes the image and checks it.
func (s *Store) load(ctx context.Context, m Manifest, images []engine.Image) (Loaded, error) {
	if len(m.Config) == 0 || len(m.Config) > maxConfig {
		return Loaded{}, fault.New(fault.ErrImage, "", "a configuration of %d bytes", len(m.Config))
	}
	layers, err := layersOf(m.Config)
	if err != nil {
		return Loaded{}, err
	}
	if !slices.Equal(layers, m.Layers) {
		return Loaded{}, fault.New(fault.ErrImage, "", "its configuration names other layers than were announced")
	}
	info, err := s.Engine.Info(ctx)
	if err != nil {
		return Loaded{}, err
	}
	there := chainsOf(images)
	if info.WholeLoads {
		there = nil
		if err := s.takeOut(ctx, m, images); err != nil {
			return Loaded{}, err
		}
	}
	id, missing, err := s.give(ctx, m, info, there)
	if err != nil && !final(err) {
		// The engine wants the layers that it has; or it has just lost one; or
		// one was damaged on the disk.
		if err := s.recheck(m.Layers); err != nil {
			return Loaded{}, err
		}
		if err := s.takeOut(ctx, m, images); err != nil {
			return Loaded{}, err
		}
		id, missing, err = s.give(ctx, m, info, nil)
	}
	if err != nil || len(missing) > 0 {
		return Loaded{Missing: missing}, err
	}
	return Loaded{ID: id}, s.verify(ctx, id, m, info)
}

// final says that another archive would not help.
func final(err error) bool {
	return errors.Is(err, engine.ErrUnreachable) || errors.Is(err, fault.ErrHost) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// give has the engine load the image from the layers in the folder, but for
// those whose chain it has. Missing are layers that are neither here nor there.
func (s *Store) give(ctx context.Context, m Manifest, info engine.Info, there map[string]bool) (id string, missing []string, err error) {
	files := map[string]*os.File{}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var need int64
	for i, chain := range chains(m.Layers) {
		l := m.Layers[i]
		if there[chain] || files[l] != nil || slices.Contains(missing, l) {
			continue
		}
		// Open from here on: another deploy may load it too, and remove it.
		f, err := os.Open(s.whole(l))
		if errors.Is(err, os.ErrNotExist) {
			missing = append(missing, l)
			continue
		}
		if err != nil {
			return "", nil, fault.New(fault.ErrHost, "", "layer: %w", err)
		}
		files[l] = f
		st, err := f.Stat()
		if err != nil {
			return "", nil, fault.New(fault.ErrHost, "", "layer: %w", err)
		}
		need += st.Size()
	}
	if len(missing) > 0 {
		return "", missing, nil
	}
	// The engine writes down what it is given, and then unpacks it.
	if err := checkSpace(info.RootDir, 2*need, "the image's new layers"); err != nil {
		return "", nil, err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(bundle(w, m, files))
	}()
	id, err = s.Engine.LoadImage(ctx, r)
	r.CloseWithError(errors.New("the engine has ended the load"))
	<-done
	return id, nil, err
}

// bundle writes an archive of one image, as engines load it. It has no name:
// that is given when the image was checked.
func bundle(w io.Writer, m Manifest, files map[string]*os.File) error {
	t := tar.NewWriter(w)
	add := func(name string, size int64, r io.Reader) error {
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		_, err := io.Copy(t, r)
		return err
	}
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: bare(sum(m.Config)) + ".json"}
	for _, l := range m.Layers {
		entry.Layers = append(entry.Layers, bare(l)+".tar")
	}
	text, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	if err := add(entry.Config, int64(len(m.Config)), bytes.NewReader(m.Config)); err != nil {
		return err
	}
	for l, f := range files {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if err := add(bare(l)+".tar", st.Size(), f); err != nil {
			return err
		}
	}
	if err := add("manifest.json", int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	return t.Close()
}

// verify says whether an image that was loaded is the one that was meant. The
// engine has checked the layers against their sums; an image's ID is the sum
// of its configuration, unless the engine keeps its images in another way.
func (s *Store) verify(ctx context.Context, id string, m Manifest, info engine.Info) error {
	im, err := s.Engine.Image(ctx, id)
	if err != nil {
		return err
	}
	if want := sum(m.Config); !info.WholeLoads && id != want {
		return fault.New(fault.ErrImage, "", "the engine has made the image %s of it, not %s; it gets no name", id, want)
	}
	if !slices.Equal(im.Layers, m.Layers) {
		return fault.New(fault.ErrImage, "", "the engine has made an image %s of other layers of it; it gets no name", id)
	}
	return nil
}

// takeOut puts layers that the engine has, and the folder has not, into the
// folder.
func (s *Store) takeOut(ctx context.Context, m Manifest, images []engine.Image) error {
	for {
		lacking := map[string]bool{}
		for _, l := range m.Layers {
			if _, err := os.Stat(s.whole(l)); err != nil {
				lacking[l] = true
			}
		}
		best, most := -1, 0
		for i, im := range images {
			n := 0
			for _, l := range m.Layers {
				if lacking[l] && slices.Contains(im.Layers, l) {
					n++
				}
			}
			if n > most {
				best, most = i, n
			}
		}
		if best < 0 {
			return nil
		}
		err := s.takeOutOf(ctx, images[best], lacking)
		// What the engine does not give can still be sent.
		if err != nil && final(err) {
			return err
		}
		images = slices.Delete(slices.Clone(images), best, best+1)
	}
}

func (s *Store) takeOutOf(ctx context.Context, im engine.Image, wanted map[string]bool) error {
	if err := s.makeRoom(im.ID, im.Size); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.Dir, savePrefix)
	if err != nil {
		return tellSpace(fault.New(fault.ErrHost, "", "folder for layers: %w", err), s.Dir)
	}
	defer os.RemoveAll(dir)
	taken, err := save(ctx, s.Engine, im.ID, dir)
	if err != nil {
		return err
	}
	for l := range taken.sizes {
		if !wanted[l] {
			continue
		}
		// Not synced, as it is to be loaded now; the engine checks its sum.
		if err := os.Rename(taken.file(l), s.whole(l)); err != nil {
			return fault.New(fault.ErrHost, "", "layer: %w", err)
		}
	}
	return nil
}

// recheck removes layers that are not what their names say.
func (s *Store) recheck(layers []string) error {
	for _, l := range layers {
		f, err := os.Open(s.whole(l))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fault.New(fault.ErrHost, "", "layer: %w", err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err == nil && "sha256:"+hex.EncodeToString(h.Sum(nil)) == l {
			continue
		}
		if err := os.Remove(s.whole(l)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.ErrHost, "", "layer: %w", err)
		}
	}
	return nil
}

// forget removes layers that the engine has now. One that stays goes when it is
// old.
func (s *Store) forget(layers []string) {
	for _, l := range layers {
		_ = os.Remove(s.whole(l))
	}
}
