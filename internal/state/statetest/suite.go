package statetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// Store is converge.Store, which this package cannot import.
type Store interface {
	Lock(ctx context.Context, service string, h state.Holder) (release func(), err error)
	Goal(service string) (g goal.Goal, ok bool, err error)
	PutGoal(g goal.Goal) error
	DeleteGoal(service string) error
	Goals() ([]goal.Goal, error)
	LockProxy(ctx context.Context) (release func(), err error)
	Routes() (state.Routes, error)
	PutRoutes(r state.Routes) error
	Address(ctx context.Context, subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error)
}

// Suite is what every store does. open makes an empty store; what it returns
// opens that store once more, as another process would.
func Suite(t *testing.T, open func(t *testing.T) (again func() Store)) {
	for name, test := range map[string]func(t *testing.T, again func() Store){
		"KeepsGoals":                  keepsGoals,
		"HandsOutCopies":              handsOutCopies,
		"ListsGoalsInOrder":           listsGoals,
		"KeepsRoutes":                 keepsRoutes,
		"RefusesCommandWhileLocked":   refusesCommand,
		"WaitsForSupervisor":          waitsForSupervisor,
		"StopsWaitingWithContext":     stopsWaiting,
		"SupervisorLetsCommandBefore": letsCommandBefore,
		"LocksServicesApart":          locksApart,
		"WaitsForProxyLock":           waitsForProxy,
		"HandsOutAddressesInTurn":     addressesInTurn,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Goal returns a goal in which every kind of field is set.
func Goal(service string) goal.Goal {
	release := func(rev string) goal.Release {
		return goal.Release{
			Digest: strings.Repeat("a", 60) + rev, Revision: rev, Image: "sha256:" + rev, Reference: "shop:" + rev, Pulled: true,
			Container: spec.Container{
				Image: "shop", Command: []string{"a b", `"`, "\u2028<&>"}, Init: true,
				Environment: map[string]string{"A": "010", "B": "yes"},
				Secrets:     map[string]spec.Secret{"S": {File: "/etc/s", As: spec.AsFile}},
				Ulimits:     map[string]spec.Ulimit{"nofile": {Soft: 1, Hard: 2}}, Limits: spec.Limits{Memory: 1 << 40, CPUs: 0.5},
				StopGracePeriod: spec.Duration(90 * time.Second), HTTPPort: 3000,
			},
		}
	}
	current, n := release("v1"), 3
	return goal.Goal{
		Service: service, Running: true, Current: &current, Epoch: 7, Replicas: &n,
		Candidate: &goal.Candidate{Release: release("v2"), Since: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC), Before: true},
		Kept:      []goal.Kept{{Release: release("v0"), Undone: true}},
		Resume:    time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC),
		Dropped:   time.Date(2026, 3, 1, 12, 0, 2, 0, time.UTC),
		Policy: spec.Policy{Kind: spec.Web, PullPolicy: spec.PullMissing, Replicas: 2, Retain: 3,
			HTTP:   &spec.HTTP{Hosts: []string{"shop.example.com"}, Path: "/", Listen: spec.Listen{Addr: netip.MustParseAddr("127.0.0.1"), Port: 80}},
			Health: spec.Health{Kind: spec.HealthHTTP, Path: "/", Interval: spec.Duration(5 * time.Second)}},
	}
}

func keepsGoals(t *testing.T, again func() Store) {
	s := again()
	if _, ok, err := s.Goal("shop"); ok || err != nil {
		t.Fatalf("Goal of an empty store: ok %v, err %v", ok, err)
	}
	want := Goal("gocardless_app_production")
	must(t, s.PutGoal(want))
	for i := range 2 {
		got, ok, err := again().Goal(want.Service)
		must(t, err)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v\n%+v\nwant\n%+v", ok, got, want)
		}
		if i == 0 { // the second time over the first, and smaller
			want.Candidate, want.Replicas, want.Kept, want.Resume, want.Dropped = nil, nil, nil, time.Time{}, time.Time{}
			must(t, s.PutGoal(want))
		}
	}
	for range 2 { // the second time there is none
		must(t, s.DeleteGoal(want.Service))
		if _, ok, err := again().Goal(want.Service); ok || err != nil {
			t.Fatalf("Goal after DeleteGoal: ok %v, err %v", ok, err)
		}
	}
}

func handsOutCopies(t *testing.T, again func() Store) {
	s := again()
	g := Goal("shop")
	must(t, s.PutGoal(g))
	g.Current.Revision, *g.Replicas, g.Kept[0].Undone = "changed", 9, false
	got, _, err := s.Goal("shop")
	must(t, err)
	got.Candidate.Before = false
	got.Commit()
	got, _, err = s.Goal("shop")
	must(t, err)
	if !reflect.DeepEqual(got, Goal("shop")) {
		t.Errorf("a caller changed what is kept: %+v", got)
	}

	r := routes()
	must(t, s.PutRoutes(r))
	r.Table.Routes[0].Targets[0].Instance, r.Drains["a"] = "changed", time.Time{}
	kept, err := s.Routes()
	must(t, err)
	kept.Table.Routes[0].Targets[0].Weight = 9
	delete(kept.Drains, "a")
	kept, err = s.Routes()
	must(t, err)
	kept.BootID = ""
	if !reflect.DeepEqual(kept, routes()) {
		t.Errorf("a caller changed what is kept: %+v", kept)
	}
}

func listsGoals(t *testing.T, again func() Store) {
	s := again()
	if goals, err := s.Goals(); len(goals) != 0 || err != nil {
		t.Fatalf("Goals of an empty store: %v, %v", goals, err)
	}
	ids := []string{"a", "a-b", "a_b", "ab", "b", "z"}
	for _, i := range []int{5, 2, 0, 3, 1, 4} {
		must(t, s.PutGoal(Goal(ids[i])))
	}
	goals, err := again().Goals()
	must(t, err)
	var got []string
	for _, g := range goals {
		if !reflect.DeepEqual(g, Goal(g.Service)) {
			t.Errorf("goal of %s: %+v", g.Service, g)
		}
		got = append(got, g.Service)
	}
	if !reflect.DeepEqual(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

func routes() state.Routes {
	return state.Routes{
		Table: proxy.Table{Routes: []proxy.Route{{
			Service: "shop",
			HTTP:    spec.HTTP{Hosts: []string{"shop.example.com"}, Path: "/", Listen: spec.Listen{Port: 80}},
			Targets: []proxy.Target{{Instance: "shop.v1.aaaa-1-1", Addr: netip.MustParseAddrPort("10.9.0.2:3000"), Weight: 1}},
		}}},
		Drains: map[string]time.Time{"a": time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)},
	}
}

func keepsRoutes(t *testing.T, again func() Store) {
	s := again()
	r, err := s.Routes()
	must(t, err)
	if r.BootID == "" || len(r.Table.Routes)+len(r.Drains) != 0 {
		t.Fatalf("routes of an empty store: %+v", r)
	}
	boot := r.BootID
	want := routes()
	must(t, s.PutRoutes(want))
	got, err := again().Routes()
	must(t, err)
	want.BootID = boot
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func refusesCommand(t *testing.T, again func() Store) {
	ctx := t.Context()
	start := time.Now()
	release, err := again().Lock(ctx, "shop", state.Holder{Verb: "upgrade", Revision: "v2", User: "alice", Start: start})
	must(t, err)
	// Others, and the same process, are refused, also when they supervise.
	for _, super := range []bool{false, true} {
		_, err = again().Lock(ctx, "shop", state.Holder{Verb: "stop", Supervisor: super})
		if !errors.Is(err, fault.ErrLocked) {
			t.Fatalf("a second Lock: %v, want fault.ErrLocked", err)
		}
		for _, word := range []string{"upgrade of shop to v2 by alice", start.Format("15:04:05"), "PID"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not name %q", err, word)
			}
		}
		if fault.Hint(err) == "" {
			t.Error("no hint")
		}
	}
	release()
	release() // once more does nothing
	release, err = again().Lock(ctx, "shop", state.Holder{Verb: "stop"})
	must(t, err)
	release()
}

func waitsForSupervisor(t *testing.T, again func() Store) {
	ctx := t.Context()
	super, err := again().Lock(ctx, "shop", state.Holder{Verb: "supervise", Supervisor: true})
	must(t, err)
	got := make(chan func(), 1)
	go func() {
		release, err := again().Lock(ctx, "shop", state.Holder{Verb: "upgrade"})
		if err != nil {
			t.Error(err)
			release = func() {}
		}
		got <- release
	}()
	select {
	case <-got:
		t.Fatal("two hold one lock")
	case <-time.After(30 * time.Millisecond):
	}
	super()
	(<-got)()
}

func stopsWaiting(t *testing.T, again func() Store) {
	release, err := again().Lock(t.Context(), "shop", state.Holder{Verb: "supervise", Supervisor: true})
	must(t, err)
	why := errors.New("why")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if _, err := again().Lock(ctx, "shop", state.Holder{Verb: "stop"}); !errors.Is(err, why) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if _, err := again().Lock(ctx, "other", state.Holder{Verb: "stop"}); !errors.Is(err, why) {
		t.Errorf("a free lock and a context that is done: got %v, want its cause", err)
	}
	release()
	release, err = again().Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	must(t, err) // nobody waits any more
	release()
}

// letsCommandBefore: a supervisor that lets go and wants the lock again at
// once finds that the command that waited has it.
func letsCommandBefore(t *testing.T, again func() Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := again()
	h := state.Holder{Verb: "supervise", Supervisor: true}
	release, err := s.Lock(ctx, "shop", h)
	must(t, err)
	got := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		release, err := again().Lock(ctx, "shop", state.Holder{Verb: "upgrade"})
		close(got)
		if err != nil {
			t.Error(err)
			return
		}
		<-ctx.Done()
		release()
	})
	defer wg.Wait()
	for {
		release()
		if release, err = s.Lock(ctx, "shop", h); err != nil {
			break
		}
	}
	if !errors.Is(err, fault.ErrLocked) {
		t.Fatalf("got %v, want fault.ErrLocked", err)
	}
	<-got
	cancel()
}

func locksApart(t *testing.T, again func() Store) {
	for i := range 3 {
		release, err := again().Lock(t.Context(), fmt.Sprint("shop-", i), state.Holder{Verb: "stop"})
		must(t, err)
		defer release()
	}
	release, err := again().LockProxy(t.Context())
	must(t, err)
	release()
}

func waitsForProxy(t *testing.T, again func() Store) {
	const each = 20
	var wg sync.WaitGroup
	// Atomic, because the race detector knows nothing of flock.
	var n, inside atomic.Int32
	for range 4 {
		s := again()
		wg.Go(func() {
			for range each {
				release, err := s.LockProxy(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold one lock")
				}
				n.Add(1)
				inside.Add(-1)
				release()
			}
		})
	}
	wg.Wait()
	if n.Load() != 4*each {
		t.Errorf("held %d times, want %d", n.Load(), 4*each)
	}
}

func addressesInTurn(t *testing.T, again func() Store) {
	subnet := netip.MustParsePrefix("10.9.0.0/29") // .1 is the gateway, .7 the broadcast
	used := map[netip.Addr]bool{netip.MustParseAddr("10.9.0.4"): true}
	var got []string
	for range 7 {
		a, err := again().Address(t.Context(), subnet, used)
		must(t, err)
		got = append(got, a.String()[len("10.9.0."):])
	}
	if s := strings.Join(got, " "); s != "2 3 5 6 2 3 5" {
		t.Errorf("handed out %s", s)
	}
	for i := 2; i < 7; i++ {
		used[netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})] = true
	}
	if a, err := again().Address(t.Context(), subnet, used); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("a full subnet: got %v, %v, want fault.ErrHost with a hint", a, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
