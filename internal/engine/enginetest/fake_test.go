package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
)

func TestFake_Conforms(t *testing.T) {
	for _, whole := range []bool{false, true} {
		t.Run(fmt.Sprintf("whole loads %t", whole), func(t *testing.T) {
			Suite(t, func(*testing.T) Instance {
				f := NewFake()
				f.Behave, f.WholeLoads = AppBehaviour, whole
				f.AddLayers("app:1", []byte("base"), []byte("app"))
				f.AddLayers("app:2", []byte("base"), []byte("app"))
				return Instance{Engine: f, Prefix: "ct", Labels: map[string]string{"ct": "1"}, Image: "app:1", Other: "app:2"}
			})
		})
	}
}

// started returns a fake with one running container named app.
func started(t *testing.T, behave func(engine.Create) Behaviour) *Fake {
	f := NewFake()
	im := f.AddImage("app:1", "one")
	f.Behave = behave
	if _, err := f.Network(t.Context(), "net", netip.MustParsePrefix("10.0.0.0/24"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create(t.Context(), engine.Create{Name: "app", Image: im.ID, Network: "net"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFake_StopTakesVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := started(t, func(engine.Create) Behaviour { return Behaviour{TermAfter: 7 * time.Second, TermCode: 143} })
		begin := time.Now()
		if err := f.Stop(t.Context(), "app", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		c := f.Containers()[0]
		if took := time.Since(begin); took != 7*time.Second || c.ExitCode != 143 {
			t.Errorf("took %s, exit code %d", took, c.ExitCode)
		}
		if err := f.Start(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		begin = time.Now()
		if err := f.Stop(t.Context(), "app", 3*time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 3*time.Second || f.Containers()[0].ExitCode != 137 {
			t.Errorf("took %s, %+v", took, f.Containers()[0])
		}
		// The timers of an old run must not end a new one.
		if err := f.Start(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c := f.Containers()[0]; c.State != engine.Running {
			t.Errorf("%+v", c)
		}
	})
}

func TestFake_StopGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := started(t, func(engine.Create) Behaviour { return Behaviour{IgnoresTerm: true} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Stop(ctx, "app", 10*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if c := f.Containers()[0]; c.State != engine.Running {
			t.Errorf("%+v", c)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if c := f.Containers()[0]; c.State != engine.Exited || c.ExitCode != 137 {
			t.Errorf("%+v", c)
		}
	})
}

func TestFake_Faults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := started(t, nil)
		var next Fault
		var seen []string
		f.Intercept = func(op, arg string) Fault {
			seen = append(seen, op+" "+arg)
			return next
		}
		next = Fault{Err: engine.ErrUnreachable}
		if err := f.Stop(t.Context(), "app", 0); !errors.Is(err, engine.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if c := f.Containers()[0]; c.State != engine.Running {
			t.Errorf("a fault before the effect had it: %+v", c)
		}
		next.Late = true
		if err := f.Stop(t.Context(), "app", 0); !errors.Is(err, engine.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if c := f.Containers()[0]; c.State != engine.Exited {
			t.Errorf("the answer was to be lost, not the effect: %+v", c)
		}
		next = Fault{Hang: true, Late: true}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		if err := f.Remove(ctx, "app"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Hour {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
		if n := len(f.Containers()); n != 0 {
			t.Errorf("%d containers", n)
		}
		if want := "[Stop app Stop app Remove app]"; want != sprint(seen) {
			t.Errorf("asked about %v", seen)
		}
	})
}

func sprint(s []string) string {
	out := "["
	for i, w := range s {
		if i > 0 {
			out += " "
		}
		out += w
	}
	return out + "]"
}

func TestFake_RebootIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := started(t, nil)
		var events []engine.Event
		done := make(chan error, 1)
		go func() {
			done <- f.Events(t.Context(), nil, func() {}, func(e engine.Event) { events = append(events, e) })
		}()
		synctest.Wait()
		f.Reboot()
		if err := <-done; !errors.Is(err, engine.ErrUnreachable) || len(events) != 0 {
			t.Errorf("got %v, events %v", err, events)
		}
		if c := f.Containers()[0]; c.State != engine.Exited || c.ExitCode != 255 {
			t.Errorf("%+v", c)
		}
	})
}

func TestFake_DieAndForeigners(t *testing.T) {
	f := started(t, nil)
	freed := f.Containers()[0].Address
	if want := netip.MustParseAddr("10.0.0.2"); freed != want {
		t.Errorf("address %s, want the lowest free one, %s", freed, want)
	}
	if !f.Die("app", 137, true) || f.Die("app", 1, false) {
		t.Error("it can die once")
	}
	if c := f.Containers()[0]; !c.OOMKilled || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
	got, err := f.AddForeign("stranger", "net", netip.Addr{})
	if err != nil || got != freed {
		t.Errorf("the next container got %s (%v), want the freed %s", got, err, freed)
	}
	if _, err := f.AddForeign("other", "net", freed); !errors.Is(err, engine.ErrCannotRun) {
		t.Errorf("got %v", err)
	}
	if c, ok := f.Made("app"); !ok || c.Network != "net" {
		t.Errorf("made from %+v", c)
	}
	if !f.Vanish("stranger") || f.Vanish("stranger") {
		t.Error("it can vanish once")
	}
	f.Publish("registry.example.com/shop:v2", "shop two")
	if im, err := f.Pull(t.Context(), "registry.example.com/shop:v2"); err != nil || im.ID == "" {
		t.Errorf("pulled %+v, %v", im, err)
	}
	if _, err := f.Pull(t.Context(), "registry.example.com/shop:v3"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if n := f.Names(); sprint(n) != "[app:1 registry.example.com/shop:v2]" {
		t.Errorf("names %q", n)
	}
}

func TestFake_AttachedPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFake()
		im := f.AddImage("app:1", "one")
		f.Behave = func(c engine.Create) Behaviour {
			return Behaviour{Echo: c.Name == "echo", Exits: c.Name == "late", After: time.Hour, Code: 3, OOM: c.Name == "late", Stdout: "begins\n"}
		}
		run := func(name string, s engine.Streams) error {
			id, err := f.Create(t.Context(), engine.Create{Name: name, Image: im.ID, Stdin: s.Stdin != nil})
			if err != nil {
				t.Fatal(err)
			}
			return f.Attach(t.Context(), id, s, func() {
				if err := f.Start(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
		}
		var out bytes.Buffer
		begin := time.Now()
		if err := run("late", engine.Streams{Stdout: &out}); err != nil || time.Since(begin) != time.Hour || out.String() != "begins\n" {
			t.Errorf("%v after %s, %q", err, time.Since(begin), out.String())
		}
		if c, err := f.Inspect(t.Context(), "late"); err != nil || c.ExitCode != 3 || !c.OOMKilled {
			t.Errorf("%+v, %v", c, err)
		}
		out.Reset()
		if err := run("echo", engine.Streams{Stdin: strings.NewReader("typed"), Stdout: &out}); err != nil || out.String() != "begins\ntyped" {
			t.Errorf("%v, %q", err, out.String())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Create(t.Context(), engine.Create{Name: "never", Image: im.ID}); err != nil {
			t.Fatal(err)
		}
		err := f.Attach(ctx, "never", engine.Streams{}, func() {
			if err := f.Remove(t.Context(), "never"); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("removed before its start: %v", err)
		}
	})
}
