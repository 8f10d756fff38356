package ship

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
)

// noise returns bytes that do not get smaller, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte{byte(seed), byte(seed >> 8)})).Read(b)
	return b
}

// world is a sender with an image of three layers, of which a host has one.
type world struct {
	t        *testing.T
	from, to *enginetest.Fake
	image    engine.Image
	layers   [][]byte
	archive  *Archive
	store    *Store
	saves    atomic.Int32
}

const (
	name    = "shop:v2"
	missing = 2<<20 + 17 // bytes of layers that the host lacks
)

// newWorld makes one; set is called before anything is stored.
func newWorld(t *testing.T, set func(w *world)) *world {
	t.Helper()
	w := &world{t: t, from: enginetest.NewFake(), to: enginetest.NewFake()}
	w.layers = [][]byte{noise(1, 1<<20), noise(2, 3<<19), noise(3, 1<<19+17)}
	if set != nil {
		set(w)
	}
	w.from.Intercept = func(op, _ string) (f enginetest.Fault) {
		if op == "SaveImage" {
			w.saves.Add(1)
		}
		return f
	}
	w.image = w.from.AddLayers(name, w.layers...)
	w.to.AddLayers("base:1", w.layers[0])
	w.archive = w.open()
	w.store = &Store{Dir: filepath.Join(t.TempDir(), "incoming"), Engine: w.to}
	return w
}

func (w *world) open() *Archive {
	w.t.Helper()
	a, err := Open(w.t.Context(), w.from, name, w.t.TempDir())
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, a.Close()) })
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is says whether the host has the image now, by its name, and nothing is left
// in the folder.
func (w *world) is(want string) {
	w.t.Helper()
	got, err := w.to.Image(w.t.Context(), name)
	must(w.t, err)
	if got.ID != want || !slices.Equal(got.Layers, w.image.Layers) {
		w.t.Errorf("%s is %s, want %s", name, got.ID, want)
	}
	left, err := os.ReadDir(w.store.Dir)
	must(w.t, err)
	left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == aliasSuffix })
	if len(left) != 0 {
		w.t.Errorf("left in the folder: %v", left)
	}
}

// hasNot says that the host has nothing by that name.
func (w *world) hasNot() {
	w.t.Helper()
	if im, err := w.to.Image(w.t.Context(), name); !errors.Is(err, engine.ErrNotFound) {
		w.t.Errorf("%s is %s, %v", name, im.ID, err)
	}
}

// wire is a target between which and the sender something happens.
type wire struct {
	Target
	put  func(ctx context.Context, p Part, frames io.Reader) (Held, error)
	load func(ctx context.Context, m Manifest) (Loaded, error)
}

func (w wire) Put(ctx context.Context, p Part, frames io.Reader) (Held, error) {
	if w.put == nil {
		return w.Target.Put(ctx, p, frames)
	}
	return w.put(ctx, p, frames)
}

func (w wire) Load(ctx context.Context, m Manifest) (Loaded, error) {
	if w.load == nil {
		return w.Target.Load(ctx, m)
	}
	return w.load(ctx, m)
}

// cutReader breaks after some bytes.
type cutReader struct {
	r    io.Reader
	left int64
	err  error
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, c.err
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// flipReader changes one bit.
type flipReader struct {
	r  io.Reader
	at int64
}

func (f *flipReader) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if f.at >= 0 && f.at < int64(n) {
		b[f.at] ^= 0x40
	}
	f.at -= int64(n)
	return n, err
}

// pause says that it is reached, and waits.
type pause struct{ reached, on chan struct{} }

func (p *pause) Read([]byte) (int, error) {
	close(p.reached)
	<-p.on
	return 0, io.EOF
}
