//go:build e2e

package ship

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/docker"
	"conductor/internal/engine/enginetest"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

// pair is the engine of this machine, which sends, and one of a host's own,
// which has a base image by a load of its own.
type pair struct {
	t        *testing.T
	prefix   string
	from, to *docker.Engine
	host     *enginetest.Dockerd
	base     []map[string][]byte
	store    *Store
}

func newPair(t *testing.T, baseSize int) *pair {
	t.Helper()
	s := sha256.Sum256([]byte(t.Name()))
	p := &pair{t: t, prefix: "ct-ship-" + hex.EncodeToString(s[:4])}
	p.host = enginetest.StartDockerd(t, "host", "10.255.253.9/29")
	p.from, p.to = p.connect(""), p.connect("unix://"+p.host.Socket)
	p.base = []map[string][]byte{{"base": noise(10, baseSize)}, enginetest.AppLayer(t)}
	enginetest.LoadLayersIn(t, p.host.Socket, p.prefix+"/base:1", nil, p.base...)
	p.store = &Store{Dir: filepath.Join(t.TempDir(), "incoming"), Engine: p.to}
	return p
}

func (p *pair) connect(host string) *docker.Engine {
	p.t.Helper()
	e, err := docker.New(host)
	must(p.t, err)
	p.t.Cleanup(func() { _ = e.Close() })
	return e
}

// build makes an image at the sender: the base, and a layer with a word and
// some noise.
func (p *pair) build(tag string, seed uint64, size int) (ref, id string) {
	p.t.Helper()
	ref = p.prefix + "/app:" + tag
	top := map[string][]byte{"word": []byte("this is " + tag), "noise": noise(seed, size)}
	layers := append(append([]map[string][]byte{}, p.base...), top)
	return ref, enginetest.LoadLayers(p.t, ref, map[string]any{"Entrypoint": []string{"/app"}}, layers...)
}

func (p *pair) open(ref string) *Archive {
	p.t.Helper()
	a, err := Open(p.t.Context(), p.from, ref, p.t.TempDir())
	must(p.t, err)
	p.t.Cleanup(func() { must(p.t, a.Close()) })
	return a
}

// runs says whether a container of the image at the host has the word.
func (p *pair) runs(ref, id, word string) {
	p.t.Helper()
	im, err := p.to.Image(p.t.Context(), ref)
	must(p.t, err)
	if im.ID != id {
		p.t.Fatalf("%s is %s at the host, and %s at the sender", ref, im.ID, id)
	}
	c, err := p.to.Create(p.t.Context(), engine.Create{
		Name: p.prefix, Image: im.ID, Command: enginetest.Cat("/word"), Spec: spec.Container{Init: true},
	})
	must(p.t, err)
	must(p.t, p.to.Start(p.t.Context(), c))
	code, err := p.to.Wait(p.t.Context(), c)
	must(p.t, err)
	var out bytes.Buffer
	must(p.t, p.to.Logs(p.t.Context(), c, engine.LogOptions{}, &out, &out))
	must(p.t, p.to.Remove(p.t.Context(), c))
	if code != 0 || out.String() != word {
		p.t.Errorf("it ends with %d and says %q", code, out.String())
	}
}

// An image of 200 MB of which 2 MB changed, to a host that has the rest by
// another image: no more than the change travels.
func TestShip_OnlyTheChangedLayerTravels(t *testing.T) {
	const changed = 2_000_000
	p := newPair(t, 198_000_000)
	ref, id := p.build("v1", 1, changed)
	before := time.Now()
	r, err := Send(t.Context(), p.open(ref), p.store, []string{ref}, nil)
	must(t, err)
	t.Logf("%+v in %s", r, time.Since(before).Round(time.Millisecond))
	if r.ID != id || r.Sent != 1 || r.Bytes < changed || r.Bytes > changed*11/10 {
		t.Errorf("%+v", r)
	}
	p.runs(ref, id, "this is v1")

	// The next one twice at once, as two people deploy it.
	ref, id = p.build("v2", 2, changed)
	var wg sync.WaitGroup
	for range 2 {
		a, s := p.open(ref), &Store{Dir: p.store.Dir, Engine: p.to}
		wg.Go(func() {
			if r, err := Send(t.Context(), a, s, []string{ref}, nil); err != nil || r.ID != id || r.Bytes > changed*11/10 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
	p.runs(ref, id, "this is v2")

	// And once more: nothing.
	r, err = Send(t.Context(), p.open(ref), p.store, []string{ref}, nil)
	must(t, err)
	if !r.Here || r.Bytes != 0 {
		t.Errorf("%+v", r)
	}
}

// An empty host gets all of it.
func TestShip_ToAHostWithNothing(t *testing.T) {
	p := newPair(t, 1_000_000)
	must(t, p.to.Untag(t.Context(), p.prefix+"/base:1"))
	ref, id := p.build("v1", 1, 1_000_000)
	r, err := Send(t.Context(), p.open(ref), p.store, []string{ref}, nil)
	must(t, err)
	if r.Sent != 3 || r.ID != id {
		t.Errorf("%+v", r)
	}
	p.runs(ref, id, "this is v1")
}

// Ten times broken off somewhere, each time begun anew by processes that know
// nothing: only what is missing travels.
func TestShip_BrokenOffTenTimes(t *testing.T) {
	const changed, times = 40_000_000, 10
	p := newPair(t, 1_000_000)
	ref, id := p.build("v1", 1, changed)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	broken := errors.New("connection cut")
	var travelled int64
	for i := range times {
		limit := rnd.Int64N(changed / times)
		put := func(ctx context.Context, part Part, frames io.Reader) (Held, error) {
			h, err := p.store.Put(ctx, part, &cutReader{r: frames, left: limit, err: broken})
			if err == nil {
				t.Errorf("%d: cut after %d bytes, and it ends well: %+v", i, limit, h)
			}
			return h, err
		}
		r, err := Send(t.Context(), p.open(ref), wire{Target: &Store{Dir: p.store.Dir, Engine: p.to}, put: put}, []string{ref}, nil)
		if !errors.Is(err, broken) {
			t.Fatalf("%d: %v", i, err)
		}
		travelled += r.Bytes
		if _, err := p.to.Image(t.Context(), ref); !errors.Is(err, engine.ErrNotFound) {
			t.Fatalf("%d: the image has its name: %v", i, err)
		}
	}
	r, err := Send(t.Context(), p.open(ref), &Store{Dir: p.store.Dir, Engine: p.to}, []string{ref}, nil)
	must(t, err)
	travelled += r.Bytes
	t.Logf("%d bytes travelled in all, %d of them at last", travelled, r.Bytes)
	if most := int64(changed + changed/100 + times*frameSize); travelled > most {
		t.Errorf("%d bytes travelled, more than %d", travelled, most)
	}
	p.runs(ref, id, "this is v1")
}

// tmpfs mounts a disk of some size, until the test ends.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, syscall.Mount("ct-ship", dir, "tmpfs", 0, "mode=0700,size="+size))
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func TestShip_DiskOfTheHostIsFull(t *testing.T) {
	p := newPair(t, 1_000_000)
	ref, id := p.build("v1", 1, 20_000_000)
	disk := tmpfs(t, "100m")
	filler := filepath.Join(disk, "filler")
	s := &Store{Dir: filepath.Join(disk, "incoming"), Engine: p.to}
	isFull := func(when string, err error) {
		t.Helper()
		if !errors.Is(err, fault.ErrHost) || !strings.Contains(fault.Hint(err), disk) {
			t.Errorf("%s: %v (%s)", when, err, fault.Hint(err))
		}
		if _, err := p.to.Image(t.Context(), ref); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: the image has its name: %v", when, err)
		}
	}
	must(t, os.WriteFile(filler, make([]byte, 30<<20), 0o600))
	r, err := Send(t.Context(), p.open(ref), s, []string{ref}, nil)
	isFull("before it begins", err)
	if r.Content != 0 {
		t.Errorf("%+v", r)
	}
	must(t, os.Remove(filler))

	// Somebody else fills it meanwhile. What was received makes room for them.
	put := func(ctx context.Context, part Part, frames io.Reader) (Held, error) {
		return s.Put(ctx, part, io.MultiReader(io.LimitReader(frames, 5<<20), &once{func() {
			f, err := os.Create(filler)
			must(t, err)
			_, err = io.Copy(f, endless{})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the disk is not full: %v", err)
			}
			must(t, f.Close())
		}}, frames))
	}
	_, err = Send(t.Context(), p.open(ref), wire{Target: s, put: put}, []string{ref}, nil)
	isFull("in the middle", err)
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left are %v", left)
	}

	must(t, os.Remove(filler))
	_, err = Send(t.Context(), p.open(ref), s, []string{ref}, nil)
	must(t, err)
	p.runs(ref, id, "this is v1")
}

// once calls a function when it is read.
type once struct{ f func() }

func (o *once) Read([]byte) (int, error) {
	o.f()
	return 0, io.EOF
}
