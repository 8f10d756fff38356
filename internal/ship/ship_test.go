package ship

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/fault"
)

func TestSend_OnlyWhatIsMissingTravels(t *testing.T) {
	w := newWorld(t, nil)
	var last Progress
	r, err := Send(t.Context(), w.archive, w.store, []string{name}, func(p Progress) {
		if p.Done < last.Done || p.Total != missing {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	})
	must(t, err)
	w.is(w.image.ID)
	if r.ID != w.image.ID || r.Sent != 2 || r.Reused != 1 || r.Content != missing || r.Bytes < missing || r.Bytes > missing+1000 || r.Resumed != 0 {
		t.Errorf("%+v", r)
	}
	if last.Done != missing {
		t.Errorf("the last progress is %+v", last)
	}

	// Again: nothing travels, and the engine need not save anything.
	other := w.open()
	r, err = Send(t.Context(), other, w.store, []string{"shop:again"}, nil)
	must(t, err)
	if !r.Here || r.Bytes != 0 || r.Sent != 0 || r.ID != w.image.ID || w.saves.Load() != 1 {
		t.Errorf("%+v, saved %d times", r, w.saves.Load())
	}
	got, err := w.to.Image(t.Context(), "shop:again")
	must(t, err)
	if got.ID != w.image.ID {
		t.Errorf("shop:again is %s", got.ID)
	}
}

func TestSend_ALayerThatIsThereTwice(t *testing.T) {
	w := newWorld(t, func(w *world) { w.layers = append(w.layers, w.layers[1], w.layers[0]) })
	r, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
	must(t, err)
	w.is(w.image.ID)
	// The first layer is at the host as the lowest, and not as the highest.
	if r.Sent != 3 || r.Content != missing+1<<20 {
		t.Errorf("%+v", r)
	}
}

func TestSend_BrokenOffGoesOn(t *testing.T) {
	w := newWorld(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	broken := errors.New("connection cut")
	var travelled, wasted int64
	for try := 0; ; try++ {
		limit := rnd.Int64N(700 << 10)
		var cut bool
		target := wire{Target: w.store, put: func(ctx context.Context, p Part, frames io.Reader) (Held, error) {
			r := &cutReader{r: frames, left: limit, err: broken}
			h, err := w.store.Put(ctx, p, r)
			if limit = r.left; limit > 0 {
				return h, err
			}
			cut = true
			return Held{}, broken // whatever the host would have answered
		}}
		r, err := Send(t.Context(), w.open(), target, []string{name}, nil)
		travelled += r.Bytes
		wasted += frameSize + headSize
		if err == nil {
			break
		}
		if !cut || !errors.Is(err, broken) {
			t.Fatal(err)
		}
		w.hasNot()
		if try > 100 {
			t.Fatal("it never ends")
		}
	}
	w.is(w.image.ID)
	if const3 := int64(3<<20 + 17); travelled > const3+wasted {
		t.Errorf("%d bytes travelled", travelled)
	}
}

func TestSend_DamagedOnTheWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		times int
		at    int64
	}{
		{"content, once", 1, 1000},
		{"content, always", 1000, 1000},
		{"the head of a frame, once", 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			times := c.times
			target := wire{Target: w.store, put: func(ctx context.Context, p Part, frames io.Reader) (Held, error) {
				if times > 0 {
					frames = &flipReader{frames, c.at}
				}
				times--
				return w.store.Put(ctx, p, frames)
			}}
			_, err := Send(t.Context(), w.archive, target, []string{name}, nil)
			switch {
			case c.at < headSize:
				if !errors.Is(err, errFrames) {
					t.Errorf("got %v", err)
				}
				w.hasNot()
				_, err = Send(t.Context(), w.archive, target, []string{name}, nil)
				must(t, err)
				w.is(w.image.ID)
			case c.times > tries:
				if !errors.Is(err, fault.ErrImage) {
					t.Errorf("got %v", err)
				}
				w.hasNot()
			default:
				must(t, err)
				w.is(w.image.ID)
			}
		})
	}
}

// After a power cut a part may hold anything.
func TestSend_GoesOnFromAPartThatIsDamaged(t *testing.T) {
	w := newWorld(t, nil)
	begin(t, w.store, w.layers[1], 2*frameSize)
	parts, err := w.store.parts(w.image.Layers[1])
	must(t, err)
	f, err := os.OpenFile(parts[0].path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 8192)
	must(t, errors.Join(err, f.Close()))
	r, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
	must(t, err)
	w.is(w.image.ID)
	if r.Content != missing+3<<19-2*frameSize { // the rest, and then all of it
		t.Errorf("%+v", r)
	}
}

// So may a layer that was checked and synced, on a bad disk.
func TestSend_LayerIsDamagedInTheFolder(t *testing.T) {
	for _, whole := range []bool{false, true} {
		w := newWorld(t, func(w *world) { w.to.WholeLoads = whole })
		loads := 0
		target := wire{Target: w.store, load: func(ctx context.Context, m Manifest) (Loaded, error) {
			if loads++; loads == 1 {
				must(t, os.WriteFile(w.store.whole(m.Layers[1]), []byte("torn"), 0o600))
			}
			return w.store.Load(ctx, m)
		}}
		r, err := Send(t.Context(), w.archive, target, []string{name}, nil)
		must(t, err)
		w.is(r.ID)
		if loads != 2 || r.Sent != 3 {
			t.Errorf("%d loads, %+v", loads, r)
		}
	}
}

// A host that was killed, or lost its folder, between any two answers.
func TestSend_FolderIsLostMeanwhile(t *testing.T) {
	w := newWorld(t, nil)
	begin(t, w.store, w.layers[1], frameSize)
	puts, loads := 0, 0
	target := wire{Target: w.store,
		put: func(ctx context.Context, p Part, frames io.Reader) (Held, error) {
			if puts++; puts == 1 {
				must(t, os.RemoveAll(w.store.Dir))
			}
			return w.store.Put(ctx, p, frames)
		},
		load: func(ctx context.Context, m Manifest) (Loaded, error) {
			if loads++; loads == 1 {
				must(t, os.RemoveAll(w.store.Dir))
			}
			return w.store.Load(ctx, m)
		}}
	r, err := Send(t.Context(), w.archive, target, []string{name}, nil)
	must(t, err)
	w.is(w.image.ID)
	if loads != 2 || r.Sent != 4 {
		t.Errorf("%d loads, %+v", loads, r)
	}
}

// A host that loses everything again and again is no endless loop.
func TestSend_FolderIsAlwaysLost(t *testing.T) {
	w := newWorld(t, nil)
	loads := 0
	target := wire{Target: w.store, load: func(ctx context.Context, m Manifest) (Loaded, error) {
		loads++
		must(t, os.RemoveAll(w.store.Dir))
		return w.store.Load(ctx, m)
	}}
	_, err := Send(t.Context(), w.archive, target, []string{name}, nil)
	if !errors.Is(err, fault.ErrImage) || loads != tries {
		t.Errorf("%v after %d loads", err, loads)
	}
	w.hasNot()
}

// An engine on containerd wants all layers: those that it has are taken out of
// it, and do not travel.
func TestSend_EngineThatWantsWholeImages(t *testing.T) {
	for _, sender := range []bool{false, true} {
		w := newWorld(t, func(w *world) { w.to.WholeLoads, w.from.WholeLoads = true, sender })
		r, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
		must(t, err)
		if r.Sent != 2 || r.Content != missing {
			t.Errorf("%+v", r)
		}
		w.is(r.ID)
		if same := r.ID == w.image.ID; same != sender {
			t.Errorf("at the host %s, at the sender %s", r.ID, w.image.ID)
		}
		id := r.ID
		r, err = Send(t.Context(), w.archive, w.store, []string{name}, nil)
		must(t, err)
		if !r.Here || r.ID != id {
			t.Errorf("again: %+v", r)
		}
	}
}

func TestSend_EngineThatRefusesAPart(t *testing.T) {
	for _, c := range []struct {
		name  string
		saves bool
		sent  int
	}{{"and gives what it has", true, 2}, {"and gives nothing", false, 3}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			loads := 0
			w.to.Intercept = func(op, _ string) (f enginetest.Fault) {
				if op == "LoadImage" {
					if loads++; loads == 1 || !c.saves && loads == 2 {
						f.Err = errors.New("open layer.tar: no such file or directory")
					}
				}
				if op == "SaveImage" && !c.saves {
					f.Err = errors.New("not implemented")
				}
				return f
			}
			r, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
			must(t, err)
			w.is(w.image.ID)
			if r.Sent != c.sent {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestSend_EngineThatMakesAnotherImage(t *testing.T) {
	w := newWorld(t, nil)
	w.store.Engine = liar{w.to, w.to.AddLayers("evil:1", w.layers...).ID}
	_, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
	if !errors.Is(err, fault.ErrImage) {
		t.Errorf("got %v", err)
	}
	w.hasNot()
}

type liar struct {
	engine.Archives
	id string
}

func (l liar) LoadImage(_ context.Context, r io.Reader) (string, error) {
	_, err := io.Copy(io.Discard, r)
	return l.id, err
}

func TestSend_EngineFails(t *testing.T) {
	for _, want := range []error{engine.ErrUnreachable, context.Canceled} {
		for _, op := range []string{"Images", "Info", "LoadImage", "Image", "Tag"} {
			w := newWorld(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			w.to.Intercept = func(o, _ string) (f enginetest.Fault) {
				if o == op && want == engine.ErrUnreachable {
					f.Err = want
				} else if o == op {
					cancel()
					f.Hang = true
				}
				return f
			}
			if _, err := Send(ctx, w.archive, w.store, []string{name}, nil); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", op, err, want)
			}
			cancel()
			w.to.Intercept = nil
			w.hasNot()
			r, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
			must(t, err)
			if r.Bytes != 0 && op != "Images" {
				t.Errorf("%s: %+v", op, r)
			}
			w.is(w.image.ID)
		}
	}
	// At the sender.
	w := newWorld(t, nil)
	w.from.Intercept = func(op, _ string) (f enginetest.Fault) {
		if op == "SaveImage" && w.saves.Add(1) == 1 {
			f.Err = engine.ErrUnreachable
		}
		return f
	}
	if _, err := Send(t.Context(), w.archive, w.store, []string{name}, nil); !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	_, err := Send(t.Context(), w.archive, w.store, []string{name}, nil)
	must(t, err)
	w.is(w.image.ID)
}

// Several deploys bring the same image, and another of the same layer, to one
// host at once, by stores of their own on one folder.
func TestSend_ManyAtOnceToOneHost(t *testing.T) {
	w := newWorld(t, nil)
	other := w.from.AddLayers("other:1", w.layers[0], w.layers[1])
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			store := &Store{Dir: w.store.Dir, Engine: w.to}
			ref, want := name, w.image.ID
			if i%3 == 0 {
				ref, want = "other:1", other.ID
			}
			a, err := Open(t.Context(), w.from, ref, t.TempDir())
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			r, err := Send(t.Context(), a, store, []string{ref}, nil)
			if err != nil || r.ID != want {
				t.Errorf("%s: %+v, %v", ref, r, err)
			}
		})
	}
	wg.Wait()
	w.is(w.image.ID)
}

// A sender that has gone to sleep holds nobody up, and does no harm when it
// wakes.
func TestSend_BesideOneThatHangs(t *testing.T) {
	for _, before := range []int64{0, 1 << 20} {
		w := newWorld(t, nil)
		asleep, wake := make(chan struct{}), make(chan struct{})
		first := make(chan error, 1)
		go func() {
			put := func(ctx context.Context, p Part, frames io.Reader) (Held, error) {
				if p.Layer != w.image.Layers[1] {
					return w.store.Put(ctx, p, frames)
				}
				return w.store.Put(ctx, p, io.MultiReader(io.LimitReader(frames, before), &pause{asleep, wake}, frames))
			}
			_, err := Send(t.Context(), w.archive, wire{Target: w.store, put: put}, []string{name}, nil)
			first <- err
		}()
		<-asleep
		r, err := Send(t.Context(), w.open(), w.store, []string{name}, nil)
		must(t, err)
		if r.Resumed > before || before > 0 && r.Resumed == 0 {
			t.Errorf("%+v", r)
		}
		got, err := w.to.Image(t.Context(), name)
		must(t, err)
		if got.ID != w.image.ID {
			t.Errorf("%s is %s", name, got.ID)
		}
		close(wake)
		must(t, <-first)
		w.is(w.image.ID)
	}
}
