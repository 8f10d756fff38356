// Package enginetest has an engine in memory that tests can break on purpose,
// and the conformance suite that it and every real adapter run.
//
// Only tests and simulations import it. It imports engine and spec, and no
// adapter.
package enginetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

// Fake is an engine in memory. It does what Docker does as far as its callers
// can see, in an order that depends on the calls alone, with no goroutine of
// its own but one that reads for Attach: it can be used inside a testing/synctest bubble in which it was
// made. Make one with NewFake; set the hooks before the first call.
type Fake struct {
	// Intercept, where it is set, is asked once for each call of a method of
	// engine.Engine, with the method's name and its first argument (the name,
	// reference or ID; for Create the name), and says what goes wrong.
	Intercept func(op, arg string) Fault
	// Behave, where it is set, says how the process of a container behaves; it
	// is asked at each start. Without it, processes run until they are told to
	// end, and then end at once.
	Behave func(c engine.Create) Behaviour
	// Clearing is for how long after its end, which the event "die" tells at
	// once, lists show a process as running: Docker clears up first.
	Clearing time.Duration
	// WholeLoads: it is as an engine that keeps its images in containerd.
	WholeLoads bool

	mu         sync.Mutex
	count      int               // makes IDs
	images     map[string]*image // by ID
	names      map[string]string // normalized reference → image ID
	registry   map[string]string // normalized reference → image ID
	networks   map[string]*engine.Network
	containers map[string]*container // by ID
	streams    map[*stream]bool
}

var _ engine.Archives = (*Fake)(nil)

// Fault is what goes wrong with one call. The zero value: nothing.
type Fault struct {
	// Err is returned in place of the answer.
	Err error
	// Hang: the call does not return until its context is done, and then with
	// the context's error.
	Hang bool
	// Late: the call has its effect before Err or Hang. An answer that is lost
	// is {Err: engine.ErrUnreachable, Late: true}.
	Late bool
}

type image struct {
	engine.Image
	names  map[string]bool
	config []byte            // nil: of AddImage
	layers map[string][]byte // by sum
}

type container struct {
	engine.Container
	made  engine.Create
	live  Behaviour
	lease netip.Addr    // the address that it holds while it runs
	ended chan struct{} // closed when the process ends, or the container goes; new at each start

	unwritten bool         // its next start
	shown     engine.State // what lists say while it runs, though it is wrong; empty: the truth
	lines     []line

	attached  map[*attachment]bool
	input     string // that nobody has read yet
	inputEnds bool   // and nothing follows
	fed       bool   // an attachment brought an input
}

type line struct {
	at     time.Time
	stderr bool
	text   string
}

// NewFake returns an engine without images and containers.
func NewFake() *Fake {
	return &Fake{
		images:     map[string]*image{},
		names:      map[string]string{},
		registry:   map[string]string{},
		networks:   map[string]*engine.Network{},
		containers: map[string]*container{},
		streams:    map[*stream]bool{},
	}
}

// AddImage puts an image here under a name, and returns it. The ID follows
// from the content, any word: the same content is the same image. It has no
// layers.
func (f *Fake) AddImage(ref, content string) engine.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	im := f.store(content)
	f.name(im.ID, mustNormal(ref))
	return im.Image
}

// Publish puts an image into the registry, from where Pull fetches it.
func (f *Fake) Publish(ref, content string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registry[mustNormal(ref)] = content
}

// Names returns the names of the images here, in order.
func (f *Fake) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for n := range f.names {
		out = append(out, familiar(n))
	}
	slices.Sort(out)
	return out
}

// Tags returns the names that begin with prefix, in order.
func (f *Fake) Tags(ctx context.Context, prefix string) (out []string, err error) {
	err = f.call(ctx, "Tags", prefix, func() error {
		for n := range f.names {
			if n = familiar(n); strings.HasPrefix(n, prefix) {
				out = append(out, n)
			}
		}
		slices.Sort(out)
		return nil
	})
	return out, err
}

func (f *Fake) store(content string) *image {
	id := "sha256:" + digest("image "+content)
	im := f.images[id]
	if im == nil {
		im = &image{Image: engine.Image{ID: id, Size: int64(len(content))}, names: map[string]bool{}}
		f.images[id] = im
	}
	return im
}

// name gives an image a name, which whatever had it loses. An image that loses
// its last name this way stays, as with Docker.
func (f *Fake) name(id, ref string) {
	if old, ok := f.names[ref]; ok {
		delete(f.images[old].names, ref)
	}
	f.names[ref] = id
	f.images[id].names[ref] = true
}

// Info says that this is a fake.
func (f *Fake) Info(ctx context.Context) (info engine.Info, err error) {
	err = f.call(ctx, "Info", "", func() error {
		info = engine.Info{Name: "Fake", Version: "1", APIVersion: "1.41", Endpoint: "memory", RootDir: "/", WholeLoads: f.WholeLoads}
		return nil
	})
	return info, err
}

// Image finds an image by name or ID.
func (f *Fake) Image(ctx context.Context, ref string) (out engine.Image, err error) {
	err = f.call(ctx, "Image", ref, func() error {
		im, err := f.find(ref)
		if err != nil {
			return err
		}
		out = im.Image
		return nil
	})
	return out, err
}

// Pull fetches what Publish put into the registry.
func (f *Fake) Pull(ctx context.Context, ref string) (out engine.Image, err error) {
	err = f.call(ctx, "Pull", ref, func() error {
		n, err := normal(ref)
		if err != nil {
			return err
		}
		content, ok := f.registry[n]
		if !ok {
			return fmt.Errorf("pull image %s: %w: manifest unknown", ref, engine.ErrNotFound)
		}
		im := f.store(content)
		f.name(im.ID, n)
		out = im.Image
		return nil
	})
	return out, err
}

// Tag gives an image another name.
func (f *Fake) Tag(ctx context.Context, id, ref string) error {
	return f.call(ctx, "Tag", ref, func() error {
		im, err := f.find(id)
		if err != nil {
			return err
		}
		n, err := normal(ref)
		if err != nil {
			return err
		}
		f.name(im.ID, n)
		return nil
	})
}

// Untag takes a name away. As with Docker, the last name of an image that a
// container was made from stays: ErrConflict.
func (f *Fake) Untag(ctx context.Context, ref string) error {
	return f.call(ctx, "Untag", ref, func() error {
		if strings.HasPrefix(ref, "sha256:") {
			return fmt.Errorf("untag image %s: it is an ID and no name", ref)
		}
		n, err := normal(ref)
		if err != nil {
			return err
		}
		id, ok := f.names[n]
		if !ok {
			return nil
		}
		im := f.images[id]
		if len(im.names) > 1 {
			delete(f.names, n)
			delete(im.names, n)
			return nil
		}
		for _, c := range f.sorted() {
			if c.Image == id {
				return fmt.Errorf("untag image %s: %w: container %s uses it", ref, engine.ErrConflict, c.Name)
			}
		}
		delete(f.names, n)
		delete(f.images, id)
		return nil
	})
}

// Network makes the network, or finds it.
func (f *Fake) Network(ctx context.Context, name string, subnet netip.Prefix, _ map[string]string) (out engine.Network, err error) {
	err = f.call(ctx, "Network", name, func() error {
		if n := f.networks[name]; n != nil {
			if subnet.IsValid() && subnet.Masked() != n.Subnet {
				return fmt.Errorf("network %s: %w: it has subnet %s, not %s", name, engine.ErrConflict, n.Subnet, subnet)
			}
			out = *n
			return nil
		}
		n, err := f.addNetwork(name, subnet)
		if err != nil {
			return err
		}
		out = *n
		return nil
	})
	return out, err
}

func (f *Fake) addNetwork(name string, subnet netip.Prefix) (*engine.Network, error) {
	overlaps := func(p netip.Prefix) bool {
		for _, n := range f.networks {
			if n.Subnet.Overlaps(p) {
				return true
			}
		}
		return false
	}
	if !subnet.IsValid() {
		for i := range 256 {
			if subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 20); !overlaps(subnet) {
				break
			}
		}
	}
	if subnet = subnet.Masked(); overlaps(subnet) {
		return nil, fmt.Errorf("network %s: %w: subnet %s overlaps with another network", name, engine.ErrConflict, subnet)
	}
	n := &engine.Network{ID: f.id("network"), Name: name, Subnet: subnet, Gateway: subnet.Addr().Next()}
	f.networks[name] = n
	return n, nil
}

// call does the work of one method under the lock, with the fault that
// Intercept wants.
func (f *Fake) call(ctx context.Context, op, arg string, do func() error) error {
	return f.during(ctx, op, arg, func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return do()
	})
}

// during is call for methods that wait, and so take the lock themselves.
func (f *Fake) during(ctx context.Context, op, arg string, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, arg, err)
	}
	var fault Fault
	if f.Intercept != nil {
		fault = f.Intercept(op, arg)
	}
	if fault.Err == nil && !fault.Hang {
		return do(ctx)
	}
	if fault.Late {
		// An answer that nobody sees, an error among them, is lost.
		_ = do(ctx)
	}
	if fault.Hang {
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w", op, arg, ctx.Err())
	}
	return fmt.Errorf("%s %s: %w", op, arg, fault.Err)
}

func (f *Fake) find(ref string) (*image, error) {
	if im := f.images[ref]; im != nil {
		return im, nil
	}
	if n, err := normal(ref); err == nil {
		if id, ok := f.names[n]; ok {
			return f.images[id], nil
		}
	}
	return nil, fmt.Errorf("image %s: %w", ref, engine.ErrNotFound)
}

func (f *Fake) id(of string) string {
	f.count++
	return digest(fmt.Sprintf("%s %d", of, f.count))
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// normal returns the full form of a reference, with its tag.
func normal(ref string) (string, error) {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", ref, err)
	}
	return reference.TagNameOnly(n).String(), nil
}

func mustNormal(ref string) string {
	n, err := normal(ref)
	if err != nil {
		panic(err)
	}
	return n
}

func familiar(full string) string {
	n, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return full
	}
	return reference.FamiliarString(n)
}

// stopSignal returns the signal that asks the container's process to end.
func stopSignal(c spec.Container) string {
	if c.StopSignal != "" {
		return c.StopSignal
	}
	return "SIGTERM"
}

// same compares signal names as Docker does: TERM is SIGTERM.
func same(a, b string) bool {
	return strings.TrimPrefix(strings.ToUpper(a), "SIG") == strings.TrimPrefix(strings.ToUpper(b), "SIG")
}
