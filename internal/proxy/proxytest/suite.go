package proxytest

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// Subject is one proxy that the suite may do with as it likes. It runs and has
// no routes of ours.
type Subject struct {
	Proxy proxy.Proxy
	// Port is free for the routes; Port+1 too.
	Port uint16
	// Addrs are three addresses that targets may have; something answers there.
	Addrs []netip.AddrPort
	// Request sends the proxy one request for the service, whose host name is
	// SERVICE.example.com, that its instance answers with the status, if it has
	// one, and returns when it is answered.
	Request func(service string, status int)
	// Restart restarts the proxy; it serves again when Restart returns.
	Restart func()
	// Stop stops it.
	Stop func()
	// Break makes the proxy refuse any new configuration until mend is called.
	Break func() (mend func())
}

// Suite says what every adapter of proxy.Proxy does. open is called once for
// each case.
func Suite(t *testing.T, open func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"ObserveBeforeAnything", observeFirst},
		{"ApplyProves", applyProves},
		{"ApplyIsIdempotent", applyTwice},
		{"EmptyTable", emptyTable},
		{"SwitchDoesNotReload", switchTargets},
		{"RemovedRouteIsGone", removeRoute},
		{"NoTargetKeepsRoute", noTarget},
		{"WeightsAndNamesComeBack", weights},
		{"CheckChangesNothing", checkOnly},
		{"RestartServesTheSame", restart},
		{"RequestsAreCounted", requests},
		{"RefusedKeepsTheTable", refusedKeeps},
		{"DownIsUnreachable", down},
		{"TwoServicesOneRoute", conflict},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func (s Subject) route(service, host string, targets ...proxy.Target) proxy.Route {
	return proxy.Route{Service: service, Targets: targets,
		HTTP: spec.HTTP{Hosts: []string{host}, Path: "/", Listen: spec.Listen{Port: s.Port}}}
}

func (s Subject) target(i int) proxy.Target {
	return proxy.Target{Instance: string(rune('a' + i)), Addr: s.Addrs[i], Weight: 1}
}

func (s Subject) shop(targets ...proxy.Target) proxy.Table {
	return proxy.Table{}.With(s.route("shop", "shop.example.com", targets...))
}

func apply(t *testing.T, s Subject, table proxy.Table) proxy.Change {
	t.Helper()
	c, err := s.Proxy.Apply(t.Context(), table)
	if err != nil {
		t.Fatalf("apply: %v (%s)", err, fault.Hint(err))
	}
	return c
}

// proved fails unless the proxy serves the table, and says that the file does.
func proved(t *testing.T, s Subject, table proxy.Table) {
	t.Helper()
	o, err := s.Proxy.Observe(t.Context())
	if err != nil {
		t.Fatalf("observe: %v", err)
	}
	want := map[string][]proxy.Target{}
	for _, r := range table.Routes {
		want[r.Service] = r.Targets
	}
	if !maps.EqualFunc(o.Targets, want, slices.Equal) {
		t.Errorf("targets %v are proved, want %v", o.Targets, want)
	}
	if !o.Routes {
		t.Error("the routes of the file are not proved")
	}
	if !o.Counted || len(o.InFlight) != 0 {
		t.Errorf("in flight: %v, counted: %v; want none, true", o.InFlight, o.Counted)
	}
}

func observeFirst(t *testing.T, s Subject) {
	o, err := s.Proxy.Observe(t.Context())
	if err != nil || len(o.Targets) != 0 || o.Routes {
		t.Errorf("observe = %+v, %v; want no target, no routes, no error", o, err)
	}
}

func applyProves(t *testing.T, s Subject) {
	if c := apply(t, s, s.shop(s.target(0))); !c.Written || !c.Reloaded {
		t.Errorf("change = %+v, want written and reloaded", c)
	}
	proved(t, s, s.shop(s.target(0)))
}

func applyTwice(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	if c := apply(t, s, s.shop(s.target(0))); c.Written || c.Reloaded {
		t.Errorf("change = %+v, want none", c)
	}
	proved(t, s, s.shop(s.target(0)))
}

func emptyTable(t *testing.T, s Subject) {
	apply(t, s, proxy.Table{})
	proved(t, s, proxy.Table{})
}

func switchTargets(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	for _, next := range []proxy.Table{s.shop(s.target(0), s.target(1)), s.shop(s.target(1)), s.shop(s.target(1), s.target(2))} {
		if c := apply(t, s, next); !c.Written || c.Reloaded {
			t.Errorf("change = %+v, want written and not reloaded", c)
		}
		proved(t, s, next)
	}
}

func removeRoute(t *testing.T, s Subject) {
	both := s.shop(s.target(0)).With(s.route("blog", "blog.example.com", s.target(1)))
	apply(t, s, both)
	proved(t, s, both)
	apply(t, s, both.Without("shop"))
	proved(t, s, both.Without("shop"))
}

func noTarget(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	apply(t, s, s.shop())
	proved(t, s, s.shop())
}

func weights(t *testing.T, s Subject) {
	a, b := s.target(0), s.target(1)
	a.Weight, b.Weight, b.Instance = 9, 1, "shop.v2.0a1b-1-1"
	apply(t, s, s.shop(a, b))
	proved(t, s, s.shop(a, b))
}

func checkOnly(t *testing.T, s Subject) {
	if err := s.Proxy.Check(t.Context(), s.shop(s.target(0))); err != nil {
		t.Fatalf("check: %v (%s)", err, fault.Hint(err))
	}
	observeFirst(t, s)
	apply(t, s, s.shop(s.target(0)))
	if err := s.Proxy.Check(t.Context(), s.shop(s.target(1)).With(s.route("blog", "blog.example.com"))); err != nil {
		t.Fatalf("check: %v (%s)", err, fault.Hint(err))
	}
	proved(t, s, s.shop(s.target(0)))
}

func restart(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	apply(t, s, s.shop(s.target(1)))
	s.Restart()
	proved(t, s, s.shop(s.target(1)))
	apply(t, s, s.shop(s.target(2)))
	proved(t, s, s.shop(s.target(2)))
}

// counted waits until the proxy has counted these requests and no others.
func counted(t *testing.T, s Subject, want map[string]proxy.Count, unserved map[string]uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		o, err := s.Proxy.Observe(t.Context())
		if err == nil && o.Requests != nil && maps.Equal(o.Requests, want) && o.Unserved != nil && maps.Equal(o.Unserved, unserved) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("requests %v, unserved %v, %v; want %v and %v", o.Requests, o.Unserved, err, want, unserved)
		}
	}
}

func requests(t *testing.T, s Subject) {
	a, b, c, d := s.target(0), s.target(1), s.target(2), s.target(1)
	c.Addr = a.Addr // they have addresses of others that are gone
	d.Instance = "d"
	want, unserved := map[string]proxy.Count{}, map[string]uint64{}
	apply(t, s, s.shop(a))
	counted(t, s, want, unserved)
	for _, status := range []int{200, 404, 500, 201, 503} {
		s.Request("shop", status)
	}
	want["a"] = proxy.Count{Requests: 5, Errors: 2}
	counted(t, s, want, unserved)

	apply(t, s, s.shop(b))
	s.Request("shop", 200)
	apply(t, s, s.shop(b).With(s.route("blog", "blog.example.com", c))) // reloads
	s.Request("shop", 502)
	s.Request("blog", 500)
	want["b"], want["c"] = proxy.Count{Requests: 2, Errors: 1}, proxy.Count{Requests: 1, Errors: 1}
	counted(t, s, want, unserved)

	for range 10 {
		s.Request("shop", 200)
	}
	apply(t, s, s.shop(d).With(s.route("blog", "blog.example.com", c)))
	for range 10 {
		s.Request("shop", 503)
	}
	want["b"], want["d"] = proxy.Count{Requests: 12, Errors: 1}, proxy.Count{Requests: 10, Errors: 10}
	counted(t, s, want, unserved)

	apply(t, s, s.shop().With(s.route("blog", "blog.example.com", c)))
	for range 3 {
		s.Request("shop", 200)
	}
	s.Request("blog", 200)
	want["c"], unserved["shop"] = proxy.Count{Requests: 2, Errors: 1}, 3
	counted(t, s, want, unserved)

	s.Restart()
	counted(t, s, map[string]proxy.Count{}, map[string]uint64{})
	s.Request("blog", 200)
	counted(t, s, map[string]proxy.Count{"c": {Requests: 1}}, map[string]uint64{})
}

func refusedKeeps(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	mend := s.Break()
	more := s.shop(s.target(0)).With(s.route("blog", "blog.example.com", s.target(1)))
	if err := s.Proxy.Check(t.Context(), more); !errors.Is(err, proxy.ErrRefused) {
		t.Errorf("check: %v, want ErrRefused", err)
	}
	if _, err := s.Proxy.Apply(t.Context(), more); !errors.Is(err, proxy.ErrRefused) || !errors.Is(err, fault.ErrProxyRefused) {
		t.Errorf("apply: %v, want ErrRefused of class ErrProxyRefused", err)
	}
	proved(t, s, s.shop(s.target(0)))
	mend()
	apply(t, s, more)
	proved(t, s, more)
}

func down(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	s.Stop()
	if _, err := s.Proxy.Observe(t.Context()); !errors.Is(err, proxy.ErrUnreachable) {
		t.Errorf("observe: %v, want ErrUnreachable", err)
	}
	for name, err := range map[string]error{
		"check": s.Proxy.Check(t.Context(), s.shop(s.target(1))),
		"apply": func() error { _, err := s.Proxy.Apply(t.Context(), s.shop(s.target(1))); return err }(),
	} {
		if !errors.Is(err, proxy.ErrUnreachable) || !errors.Is(err, fault.ErrUnreachable) || fault.Hint(err) == "" {
			t.Errorf("%s: %v (%q), want ErrUnreachable of class ErrUnreachable with a hint", name, err, fault.Hint(err))
		}
	}
	s.Restart()
	proved(t, s, s.shop(s.target(0)))
}

func conflict(t *testing.T, s Subject) {
	apply(t, s, s.shop(s.target(0)))
	both := s.shop(s.target(0)).With(s.route("blog", "shop.example.com", s.target(1)))
	if err := s.Proxy.Check(t.Context(), both); !errors.Is(err, fault.ErrDefinition) {
		t.Errorf("check: %v, want ErrDefinition", err)
	}
	proved(t, s, s.shop(s.target(0)))
}
