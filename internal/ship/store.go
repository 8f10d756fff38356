package ship

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// The bounds of what a Store keeps.
const (
	// MaxBytes is how much a Store keeps at most, unless it says otherwise:
	// layers that were received, whole or in part, before the engine has them.
	MaxBytes = 20 << 30
	// maxAge is how long what nobody came back for is kept.
	maxAge = 3 * 24 * time.Hour
	// settled is for how long nothing is removed to make room for something
	// else: it may be of a deploy that is under way.
	settled = time.Hour
)

// Store is the host's end: a Target that keeps what it receives in a folder
// until its engine has it. Several, in several processes, may use one folder.
//
// A layer that is whole is named by its sum; it was checked, and synced, before
// it had that name. A part has a name of its own, and whoever writes it has it
// locked: two that receive one layer at once write two parts, and the first to
// end wins.
type Store struct {
	Dir    string // made if it is not there
	Engine engine.Archives
	// Max is how many bytes the folder holds at most; 0: MaxBytes.
	Max int64
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

var _ Target = (*Store)(nil)

const (
	wholeSuffix = ".layer"
	partSuffix  = ".part"
	aliasSuffix = ".image"
	savePrefix  = "save-"
)

func (s *Store) whole(layer string) string { return filepath.Join(s.Dir, bare(layer)+wholeSuffix) }

func (s *Store) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Store) makeDir() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return tellSpace(fault.New(fault.ErrHost, "", "folder for layers: %w", err), s.Dir)
	}
	return nil
}

// Layers says what of an image is here: in the engine, or in the folder.
// What was in the folder for too long is removed.
func (s *Store) Layers(ctx context.Context, q Question) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, err
	}
	if err := s.makeDir(); err != nil {
		return Answer{}, err
	}
	if err := s.sweep(); err != nil {
		return Answer{}, err
	}
	images, err := s.Engine.Images(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("image %s: %w", short(q.ID), err)
	}
	a := Answer{Here: s.find(images, q) != ""}
	known := chainsOf(images)
	for i, chain := range chains(q.Layers) {
		h, err := s.held(q.Layers[i])
		if err != nil {
			return Answer{}, err
		}
		h.Whole = h.Whole || known[chain]
		a.Layers = append(a.Layers, h)
	}
	return a, nil
}

// find returns the ID here of the question's image, or nothing. Engines that
// keep images in another way than the sender's give it an ID of their own.
func (s *Store) find(images []engine.Image, q Question) (id string) {
	id = q.ID
	if own, err := os.ReadFile(s.alias(q.ID)); err == nil {
		id = string(own)
	}
	if slices.ContainsFunc(images, func(im engine.Image) bool { return im.ID == id && slices.Equal(im.Layers, q.Layers) }) {
		return id
	}
	return ""
}

// alias is the file that says which ID an image has here that was loaded and
// found to be right. It may be lost: the image is then loaded again.
func (s *Store) alias(id string) string { return filepath.Join(s.Dir, bare(id)+aliasSuffix) }

// held says what of a layer the folder has.
func (s *Store) held(layer string) (h Held, err error) {
	if _, err := os.Stat(s.whole(layer)); err == nil {
		return Held{Whole: true}, nil
	}
	parts, err := s.parts(layer)
	if err != nil {
		return h, err
	}
	if len(parts) > 0 {
		h.Offset = parts[0].size
	}
	return h, nil
}

// kept is a file in the folder.
type kept struct {
	path string
	size int64
	at   time.Time
}

// parts returns the parts of a layer, the longest first.
func (s *Store) parts(layer string) ([]kept, error) {
	return s.list(func(name string) bool {
		return strings.HasPrefix(name, bare(layer)) && strings.HasSuffix(name, partSuffix)
	},
		func(a, b kept) int { return cmp.Compare(b.size, a.size) })
}

// list returns the files whose names are of interest, in an order.
func (s *Store) list(which func(name string) bool, order func(a, b kept) int) (out []kept, err error) {
	all, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fault.New(fault.ErrHost, "", "folder for layers: %w", err)
	}
	for _, e := range all {
		if !which(e.Name()) {
			continue
		}
		st, err := e.Info()
		if err != nil {
			continue // it went meanwhile
		}
		out = append(out, kept{filepath.Join(s.Dir, e.Name()), st.Size(), st.ModTime()})
	}
	slices.SortStableFunc(out, order)
	return out, nil
}

// all returns the files, the oldest first.
func (s *Store) all() ([]kept, error) {
	return s.list(func(string) bool { return true }, func(a, b kept) int { return a.at.Compare(b.at) })
}

// sweep removes what is too old.
func (s *Store) sweep() error {
	all, err := s.all()
	if err != nil {
		return err
	}
	for _, k := range all {
		if s.now().Sub(k.at) > maxAge {
			if err := discard(k.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeRoom sees to it that there is room for need bytes more: within the
// folder's bound, for which it removes the oldest, and on the disk. What there
// is of the layer stays.
func (s *Store) makeRoom(layer string, need int64) error {
	all, err := s.all()
	if err != nil {
		return err
	}
	bound := s.Max
	if bound == 0 {
		bound = MaxBytes
	}
	left := bound - need
	for _, k := range all {
		left -= k.size
	}
	for _, k := range all {
		if left >= 0 || s.now().Sub(k.at) < settled {
			break
		}
		if strings.HasPrefix(filepath.Base(k.path), bare(layer)) {
			continue
		}
		if err := discard(k.path); err != nil {
			return err
		}
		left += k.size
	}
	if left < 0 {
		return fault.New(fault.ErrHost, "a smaller layer? or remove what is in "+s.Dir+", if no deploy is under way",
			"folder for layers %s: %s more would be %s above its bound of %s", s.Dir, size(need), size(-left), size(bound))
	}
	return checkSpace(s.Dir, need, "what is received")
}

// discard removes a file or folder, but for a part that somebody writes.
func discard(path string) error {
	if strings.HasSuffix(path, partSuffix) {
		f, err := lock(path)
		if f == nil {
			return err
		}
		defer f.Close()
	}
	if err := os.RemoveAll(path); err != nil {
		return fault.New(fault.ErrHost, "", "folder for layers: %w", err)
	}
	return nil
}

// lock opens a part and locks it until it is closed. It returns nil where
// somebody else has it locked, or it went.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.ErrHost, "", "part of a layer: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fault.New(fault.ErrHost, "", "lock %s: %w", path, err)
	}
	// Between the two whoever had it may have removed it, or made it whole.
	mine, err := f.Stat()
	if there, err2 := os.Stat(path); err != nil || err2 != nil || !os.SameFile(mine, there) {
		f.Close()
		return nil, nil
	}
	return f, nil
}
