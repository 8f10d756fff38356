package converge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/spec"
	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

// pickyProxy refuses any table that has the route.
type pickyProxy struct {
	*proxytest.Fake
	refuses string
}

func (p pickyProxy) Apply(ctx context.Context, t proxy.Table) (proxy.Change, error) {
	if _, has := t.Route(p.refuses); has {
		return proxy.Change{}, fmt.Errorf("%w: not %s", proxy.ErrRefused, p.refuses)
	}
	return p.Fake.Apply(ctx, t)
}

// All switches that wait are done by one; where the proxy refuses that, each is
// told what became of its own.
func TestRoute_SwitchesForAllWhoWait(t *testing.T) {
	const services = 20
	for name, refuses := range map[string]string{"all are good": "", "one is refused": "s07"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				px := pickyProxy{proxytest.NewFake(), refuses}
				h := &Host{Namespace: "ns", Proxy: px, Store: statetest.NewMemory()}
				all := &Switches{}
				release, err := h.Store.LockProxy(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				ids, errs := make([]string, services), make([]error, services)
				var routing sync.WaitGroup
				for n := range services {
					ids[n] = fmt.Sprintf("s%02d", n)
					at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n + 1)}), 80)
					a := action{Host: h, service: ids[n], switches: all, ids: map[string]plan.Instance{}, step: plan.Step{Do: plan.Route,
						HTTP: &spec.HTTP{Path: "/" + ids[n]}, Targets: []proxy.Target{{Instance: "ns." + ids[n], Addr: at}}}}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if n > 2 {
						ctx = t.Context()
					}
					defer cancel()
					routing.Go(func() { errs[n] = a.route(ctx) })
				}
				time.Sleep(2 * time.Second) // three give up
				release()
				routing.Wait()
				seen, err := px.Observe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				disk, err := h.Store.Routes()
				if err != nil {
					t.Fatal(err)
				}
				for n, id := range ids {
					_, filed := disk.Table.Route(id)
					switch served := len(seen.Targets[id]) == 1; {
					case n <= 2 && (!errors.Is(errs[n], context.DeadlineExceeded) || served || filed):
						t.Errorf("%s, which gave up: served %v, filed %v, %v", id, served, filed, errs[n])
					case n > 2 && id == refuses && (!errors.Is(errs[n], proxy.ErrRefused) || served || filed):
						t.Errorf("%s: served %v, filed %v, %v", id, served, filed, errs[n])
					case n > 2 && id != refuses && (errs[n] != nil || !served || !filed):
						t.Errorf("%s: served %v, filed %v, %v", id, served, filed, errs[n])
					}
				}
				if n := px.Applied(); refuses == "" && n != 1 {
					t.Errorf("the proxy was switched %d times for all, want once", n)
				}
			})
		})
	}
}

// A route that was being changed by a process that died is proved by the next
// switch to it, though that changes nothing any more.
func TestRoute_ProvesWhatAnotherBegan(t *testing.T) {
	h := &Host{Namespace: "ns", Proxy: proxytest.NewFake(), Store: statetest.NewMemory()}
	r := proxy.Route{Service: "shop", HTTP: spec.HTTP{Path: "/"}, Targets: []proxy.Target{{Instance: "ns.shop"}}}
	was := state.Routes{Table: proxy.Table{}.With(r), Changing: map[string]bool{"shop": true}}
	if err := h.Store.PutRoutes(was); err != nil {
		t.Fatal(err)
	}
	a := action{Host: h, service: "shop", ids: map[string]plan.Instance{}, step: plan.Step{Do: plan.Route, HTTP: &r.HTTP, Targets: r.Targets}}
	if err := a.route(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := h.Store.Routes(); err != nil || now.Changing["shop"] {
		t.Errorf("the route counts as changing still: %v, %v", now.Changing, err)
	}
}
