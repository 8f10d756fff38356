package ship

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine/enginetest"
	"conductor/internal/fault"
)

// files returns the names in the store's folder, sums cut short.
func files(t *testing.T, s *Store) (out []string) {
	t.Helper()
	all, err := os.ReadDir(s.Dir)
	must(t, err)
	for _, e := range all {
		out = append(out, e.Name()[:4]+filepath.Ext(e.Name()))
	}
	return out
}

// begin puts the beginning of a layer into the store.
func begin(t *testing.T, s *Store, layer []byte, n int) {
	t.Helper()
	wire := framed(t, layer[:n])
	h, err := s.Put(t.Context(), Part{Layer: sum(layer), Size: int64(len(layer))}, bytes.NewReader(wire))
	if err == nil || h.Whole || h.Offset != int64(n) {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestStore_TrustsNoName(t *testing.T) {
	w := newWorld(t, nil)
	good := w.image.Layers
	for _, bad := range []string{"", "sha256:", "../../etc/passwd", "sha256:../../etc/passwd", good[0] + "/x", good[0] + "\n", strings.ToUpper(good[0]), "sha512:" + good[0][7:]} {
		if _, err := w.store.Put(t.Context(), Part{Layer: bad, Size: 1}, bytes.NewReader(nil)); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("put %q: %v", bad, err)
		}
		for _, q := range []Question{{ID: bad, Layers: good}, {ID: w.image.ID, Layers: []string{good[0], bad}}} {
			if _, err := w.store.Layers(t.Context(), q); !errors.Is(err, fault.ErrUsage) {
				t.Errorf("layers %q: %v", q, err)
			}
			if _, err := w.store.Load(t.Context(), Manifest{Question: q, Config: []byte("{}")}); !errors.Is(err, fault.ErrUsage) {
				t.Errorf("load %q: %v", q, err)
			}
		}
	}
	for name, p := range map[string]Part{
		"negative": {Layer: good[0], Size: -1}, "before it": {Layer: good[0], Size: 5, Offset: -1}, "behind it": {Layer: good[0], Size: 5, Offset: 6},
	} {
		if _, err := w.store.Put(t.Context(), p, bytes.NewReader(nil)); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(w.store.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
	q := Question{ID: w.image.ID, Layers: slices.Repeat(good, maxLayers)}
	if _, err := w.store.Layers(t.Context(), q); !errors.Is(err, fault.ErrImage) {
		t.Errorf("too many layers: %v", err)
	}
	_, err := w.store.Load(t.Context(), Manifest{Question: w.archive.question(), Config: []byte(`{"rootfs":{"diff_ids":["` + good[0] + `"]}}`)})
	if !errors.Is(err, fault.ErrImage) {
		t.Errorf("another image's configuration: %v", err)
	}
	must(t, w.store.makeDir())
	if st, err := os.Stat(w.store.Dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestStore_ALayerLongerThanAnnounced(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Engine: enginetest.NewFake()}
	layer := noise(1, 2*frameSize)
	h, err := s.Put(t.Context(), Part{Layer: sum(layer), Size: frameSize + 1}, bytes.NewReader(framed(t, layer)))
	must(t, err)
	if h.Whole || len(files(t, s)) != 0 {
		t.Errorf("%+v, left %v", h, files(t, s))
	}
}

func TestStore_PutSaysWhereToGoOn(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Engine: enginetest.NewFake()}
	layer := noise(1, 3*frameSize+5)
	begin(t, s, layer, frameSize)
	p := Part{Layer: sum(layer), Size: int64(len(layer)), Offset: 2 * frameSize} // more than there is
	h, err := s.Put(t.Context(), p, bytes.NewReader(framed(t, layer[2*frameSize:])))
	must(t, err)
	if h.Whole || h.Offset != frameSize {
		t.Errorf("%+v", h)
	}
	for range 2 { // again, when it is there
		p.Offset = frameSize
		h, err = s.Put(t.Context(), p, bytes.NewReader(framed(t, layer[frameSize:])))
		must(t, err)
		if got, err := os.ReadFile(s.whole(p.Layer)); !h.Whole || err != nil || !bytes.Equal(got, layer) {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if len(files(t, s)) != 1 {
		t.Errorf("left %v", files(t, s))
	}
	empty := Part{Layer: sum(nil)}
	if h, err = s.Put(t.Context(), empty, bytes.NewReader(nil)); err != nil || !h.Whole {
		t.Errorf("an empty layer: %+v, %v", h, err)
	}
}

func TestStore_KeepsNothingForEver(t *testing.T) {
	now := time.Now()
	w := newWorld(t, nil)
	w.store.Now = func() time.Time { return now }
	begin(t, mkdir(t, w.store), w.layers[1], frameSize)
	must(t, os.Mkdir(filepath.Join(w.store.Dir, savePrefix+"1"), 0o700)) // of a process that was killed
	busy, err := w.store.create(w.image.Layers[2])
	must(t, err)
	defer busy.file.Close()
	look := func() int {
		t.Helper()
		_, err := w.store.Layers(t.Context(), w.archive.question())
		must(t, err)
		return len(files(t, w.store))
	}
	if n := look(); n != 3 {
		t.Errorf("at once %d files are left: %v", n, files(t, w.store))
	}
	now = now.Add(maxAge + time.Minute)
	if n := look(); n != 1 {
		t.Errorf("later %v are left, and only the part that is being written should be", files(t, w.store))
	}
}

func mkdir(t *testing.T, s *Store) *Store {
	t.Helper()
	must(t, s.makeDir())
	return s
}

func TestStore_HasABound(t *testing.T) {
	now := time.Now()
	s := &Store{Dir: t.TempDir(), Engine: enginetest.NewFake(), Max: 5 * frameSize, Now: func() time.Time { return now }}
	one, two := noise(1, 3*frameSize), noise(2, 3*frameSize)
	begin(t, s, one, 2*frameSize)
	p := Part{Layer: sum(two), Size: int64(len(two))}
	s.Max--
	_, err := s.Put(t.Context(), p, bytes.NewReader(framed(t, two)))
	if !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("over its bound, with what was just received: %v", err)
	}
	now = now.Add(settled + time.Minute)
	h, err := s.Put(t.Context(), p, bytes.NewReader(framed(t, two)))
	must(t, err)
	if !h.Whole || len(files(t, s)) != 1 {
		t.Errorf("%+v, left %v", h, files(t, s))
	}
	s.Max = 3*frameSize - 1
	if _, err := s.Put(t.Context(), Part{Layer: sum(one), Size: int64(len(one))}, bytes.NewReader(framed(t, one))); !errors.Is(err, fault.ErrHost) {
		t.Errorf("larger than its bound: %v", err)
	}
}
