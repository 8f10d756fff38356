package ship

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
)

// flow is an engine with one large image that is nowhere in memory.
type flow struct {
	*enginetest.Fake
	config []byte
	image  engine.Image
	size   int64 // of each layer
	saves  int
}

func (f *flow) layer(i int) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte{byte(i)})), f.size)
}

func newFlow(t testing.TB, layers int, size int64) *flow {
	f := &flow{Fake: enginetest.NewFake(), size: size}
	for i := range layers {
		h := sha256.New()
		_, err := io.Copy(h, f.layer(i))
		must(t, err)
		f.image.Layers = append(f.image.Layers, "sha256:"+hex.EncodeToString(h.Sum(nil)))
	}
	var err error
	f.config, err = json.Marshal(map[string]any{"rootfs": map[string]any{"diff_ids": f.image.Layers}})
	must(t, err)
	f.image.ID, f.image.Size = sum(f.config), int64(layers)*size
	return f
}

func (f *flow) Image(context.Context, string) (engine.Image, error) { return f.image, nil }

func (f *flow) SaveImage(_ context.Context, _ string, to io.Writer) error {
	f.saves++
	w := tar.NewWriter(to)
	var names []string
	for i := range f.image.Layers {
		names = append(names, fmt.Sprint(i))
		if err := w.WriteHeader(&tar.Header{Name: names[i], Mode: 0o644, Size: f.size}); err != nil {
			return err
		}
		if _, err := io.Copy(w, f.layer(i)); err != nil {
			return err
		}
	}
	text, err := json.Marshal([]any{map[string]any{"Config": "c", "Layers": names}})
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"c": f.config, "manifest.json": text} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Close()
}

// drain is an engine that has the image of a flow once it was given it.
type drain struct {
	*enginetest.Fake
	of *flow
}

func (d drain) LoadImage(_ context.Context, r io.Reader) (string, error) {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n < d.of.image.Size {
		err = fmt.Errorf("%d bytes of an image of %d", n, d.of.image.Size)
	}
	return d.of.image.ID, err
}

func (d drain) Image(context.Context, string) (engine.Image, error) { return d.of.image, nil }

func (d drain) Tag(context.Context, string, string) error { return nil }

// watch returns the most memory that was in use, in bytes above what is at its
// beginning, when it is told to stop.
func watch() (stop func() int64) {
	look := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	runtime.GC() // what other tests left
	first, most := look(), int64(0)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, look()-first)
			case <-end:
				return
			}
		}
	}()
	return func() int64 {
		close(end)
		<-done
		return most
	}
}

func TestSend_FourAtOnceInConstantMemory(t *testing.T) {
	const hosts, bound = 4, 32 << 20
	f := newFlow(t, 3, 32<<20)
	a, err := Open(t.Context(), f, "large:1", t.TempDir())
	must(t, err)
	defer a.Close()
	stop := watch()
	var wg sync.WaitGroup
	for range hosts {
		dir := t.TempDir()
		wg.Go(func() {
			s := &Store{Dir: dir, Engine: drain{enginetest.NewFake(), f}}
			r, err := Send(t.Context(), a, s, []string{"large:1"}, nil)
			if err != nil || r.ID != f.image.ID || r.Content != f.image.Size {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
	most := stop()
	t.Logf("%d hosts, an image of %s, at most %s of memory", hosts, size(f.image.Size), size(most))
	if f.saves != 1 {
		t.Errorf("the image was saved %d times", f.saves)
	}
	if most > bound {
		t.Errorf("%s of memory for an image of %s, more than %s", size(most), size(f.image.Size), size(bound))
	}
}
