//go:build e2e

package haproxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/internal/fault"
	"conductor/internal/session"
)

// rig is a real HAProxy before real web servers.
type rig struct {
	*balancertest.HAProxy
	webs []*balancertest.Web
	port int
}

func start(t *testing.T, extra ...string) *rig {
	t.Helper()
	r := &rig{port: balancertest.FreePort(t)}
	for _, name := range []string{"web1", "web2", "web3"} {
		r.webs = append(r.webs, balancertest.StartWeb(t, name))
	}
	r.HAProxy = balancertest.StartHAProxy(t, balancertest.HAProxyConf(r.port, r.webs, extra...))
	return r
}

func (r *rig) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// open returns an adapter that has four hosts; HAProxy knows three.
func (r *rig) open(t *testing.T) *Balancer {
	t.Helper()
	return r.openBackend(t, "shop")
}

func (r *rig) openBackend(t *testing.T, backend string) *Balancer {
	t.Helper()
	b, err := New(Config{
		Backend: backend,
		Hosts:   []balancer.Host{{Name: "web1"}, {Name: "second", At: "web2"}, {Name: "web3"}, {Name: "web4"}},
		Run: func(ctx context.Context, lines string) (string, error) {
			return session.HAProxy(ctx, r.Socket(), lines)
		},
		UpTimeout: time.Second, ProveTimeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func state(t *testing.T, b balancer.Balancer) map[string]balancer.Server {
	t.Helper()
	s, err := b.State(t.Context())
	if err != nil {
		t.Fatalf("state: %v (%s)", err, fault.Hint(err))
	}
	return s
}

func set(t *testing.T, b balancer.Balancer, c balancer.Change) {
	t.Helper()
	if err := b.Set(t.Context(), c); err != nil {
		t.Fatalf("%s: %v (%s)", c, err, fault.Hint(err))
	}
}

func TestBalancer_Conforms(t *testing.T) {
	balancertest.Suite(t, func(t *testing.T) balancertest.Subject {
		r := start(t)
		b := r.open(t)
		return balancertest.Subject{
			Balancer: b, Hosts: []string{"web1", "second", "web3"}, Unknown: "web4",
			Reopen: func() balancer.Balancer { return r.open(t) },
			Sick: func(host string) {
				r.webs[0].Sick(true) // the suite means the first
				balancertest.Wait(t, "HAProxy sees that "+host+" is sick", func() bool { return !state(t, b)[host].Up })
			},
			Stop: r.Kill,
		}
	})
}

func TestState_SaysWhatHAProxySees(t *testing.T) {
	r := start(t)
	b := r.open(t)
	r.webs[1].Sick(true)
	balancertest.Wait(t, "HAProxy sees that web2 is sick", func() bool { return !state(t, b)["second"].Up })
	if s := state(t, b)["second"]; !s.In || !strings.Contains(s.Says, "DOWN, L7STS") {
		t.Errorf("state %+v, want in, DOWN and why", s)
	}
	set(t, b, balancer.Change{Drain: []string{"second"}})
	r.webs[1].Sick(false)
	balancertest.Wait(t, "HAProxy sees that web2 is well while it is out", func() bool {
		s := state(t, b)["second"]
		return s.Up && !s.In
	})
}

func TestState_ShowsThatAReloadForgets(t *testing.T) {
	r := start(t)
	b := r.open(t)
	set(t, b, balancer.Change{Drain: []string{"web1"}, Away: []string{"second"}})
	r.Reload()
	for h, s := range state(t, b) {
		if !s.In || s.Away {
			t.Errorf("after a reload %s is %+v, want in", h, s)
		}
	}
	set(t, b, balancer.Change{Drain: []string{"web1"}})
	if s := state(t, b)["web1"]; s.In {
		t.Errorf("web1 is %+v, want out", s)
	}
}

// While HAProxy reloads, the process before and the one after share a socket.
// Each answer is either what is or an error; at the end the change holds.
func TestSet_WhileHAProxyReloads(t *testing.T) {
	r := start(t)
	b := r.open(t)
	for round := range 5 {
		done := make(chan error, 1)
		stop := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				c := balancer.Change{Drain: []string{"web1"}}
				if n%2 == 1 {
					c = balancer.Change{Admit: []string{"web1"}}
				}
				if err := b.Set(t.Context(), c); err != nil {
					done <- fmt.Errorf("%s: %w", c, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		r.Reload()
		close(stop)
		if err := <-done; err != nil {
			t.Fatalf("round %d: %v (%s)", round, err, fault.Hint(err))
		}
		set(t, b, balancer.Change{Drain: []string{"web1"}, Admit: []string{"second"}})
		before := r.webs[0].Requests()
		for range 20 {
			if who := get(t, r.addr()); who == "web1" {
				t.Fatalf("round %d: a request was sent to web1", round)
			}
		}
		if n := r.webs[0].Requests() - before; n != 0 {
			t.Errorf("round %d: %d requests were sent to web1", round, n)
		}
	}
}

func TestFailures_AreToldApart(t *testing.T) {
	r := start(t)
	b := r.open(t)
	fails := func(what string, b *Balancer, class error, words string) {
		t.Helper()
		err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}})
		if !errors.Is(err, class) || !strings.Contains(fmt.Sprint(err, fault.Hint(err)), words) {
			t.Errorf("%s: %v (%s), want %v and %q", what, err, fault.Hint(err), class, words)
		}
	}
	fails("another backend", r.openBackend(t, "shoop"), balancer.ErrUnknown, "the backend shoop")

	conf := balancertest.HAProxyConf(r.port, r.webs)
	for _, level := range []string{"user", "operator"} {
		r.WriteWhole(strings.Replace("global\n    stats socket SOCKET level LEVEL\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"+conf, "SOCKET level LEVEL", r.Socket()+" level "+level, 1))
		r.Kill()
		r.Start()
		balancertest.Wait(t, "HAProxy answers", func() bool { _, err := b.State(t.Context()); return err == nil })
		fails("level "+level, b, fault.ErrHost, "level admin")
		if s := state(t, b); !s["web1"].In {
			t.Errorf("at level %s: %+v", level, s)
		}
	}

	r.WriteConf(strings.Replace(conf, "check inter", "weight 0 check inter", 1))
	r.Reload()
	if s := state(t, b)["web1"]; s.In || !strings.Contains(s.Says, "weight 0") {
		t.Errorf("a weight of 0: %+v", s)
	}
	if err := b.Set(t.Context(), balancer.Change{Admit: []string{"web1"}}); !errors.Is(err, balancer.ErrRefused) || !strings.Contains(err.Error(), "weight 0") {
		t.Errorf("admit one of weight 0: %v", err)
	}

	r.Kill()
	fails("killed", b, balancer.ErrUnreachable, "nobody listens")
	if _, err := session.HAProxy(t.Context(), r.Socket()+".gone", "show info"); !errors.Is(err, fault.ErrUnreachable) || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("the socket is gone: %v", err)
	}
	r.WriteConf(conf)
	r.Start()
	balancertest.Wait(t, "it works again", func() bool {
		return b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}) == nil
	})
}
