package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// BenchmarkNext measures one decision for each of so many services. ns/instance
// is what says whether planning grows with the host, or faster.
func BenchmarkNext(b *testing.B) {
	for _, moment := range []struct {
		name string
		of   func(service, replicas int) Input
		want int // steps for each service
	}{
		{"settled", settledInput, 0},
		{"upgrade-begins", beginningInput, -1},
		{"upgrade-ready", readyInput, 1},
	} {
		for _, size := range []struct{ services, replicas int }{{1, 2}, {1, 10}, {1, 100}, {1000, 10}} {
			b.Run(fmt.Sprintf("%s/%dx%d", moment.name, size.services, size.replicas), func(b *testing.B) {
				in, instances := make([]Input, size.services), 0
				for n := range in {
					in[n] = moment.of(n, size.replicas)
					instances += len(in[n].Instances)
				}
				want := moment.want
				if want < 0 {
					want = size.replicas
				}
				b.ReportAllocs()
				for b.Loop() {
					for n := range in {
						if out := Next(in[n]); len(out.Steps) != want {
							b.Fatalf("%d steps, want %d: %v", len(out.Steps), want, out.Steps)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(instances), "ns/instance")
			})
		}
	}
}

var benchNow = time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)

// settledInput is a service that is as it should be.
func settledInput(service, replicas int) Input {
	policy := spec.Policy{Kind: spec.Web, Replicas: replicas,
		HTTP:    &spec.HTTP{Hosts: []string{fmt.Sprintf("shop-%d.example.com", service)}, Path: "/", Listen: spec.Listen{Port: 80}},
		Health:  spec.Health{Kind: spec.HealthHTTP, Path: "/", UnhealthyAfter: 3, StartTimeout: spec.Duration(time.Minute)},
		Upgrade: spec.Upgrade{Order: spec.StartFirst, DrainTimeout: spec.Duration(30 * time.Second)}}
	in := Input{Namespace: "conductor", Now: benchNow, Goal: goal.Goal{
		Service: fmt.Sprintf("shop-%d", service), Running: true, Policy: policy,
		Current: &goal.Release{Digest: strings.Repeat("a", 64), Revision: "v1"}}}
	http := *policy.HTTP
	in.Proxy = Proxy{Known: true, Has: true, HTTP: &http}
	benchInstances(&in, *in.Goal.Current, replicas, 0, In)
	return in
}

// beginningInput is a service whose next release has no instance yet.
func beginningInput(service, replicas int) Input {
	in := settledInput(service, replicas)
	in.Goal.Candidate = &goal.Candidate{Release: goal.Release{Digest: strings.Repeat("b", 64), Revision: "v2"},
		Since: benchNow, Policy: in.Goal.Policy}
	return in
}

// readyInput is a service whose next release is healthy and not routed yet.
func readyInput(service, replicas int) Input {
	in := beginningInput(service, replicas)
	benchInstances(&in, in.Goal.Candidate.Release, replicas, replicas, Out)
	return in
}

// benchInstances adds healthy instances, and targets for those that are routed.
func benchInstances(in *Input, r goal.Release, replicas, from int, route RouteState) {
	for n := range replicas {
		i := Instance{Name: Name(in.Namespace, in.Goal.Service, r.Revision, r.Digest, n+1, 1), ID: fmt.Sprintf("%s-%d", r.Digest, n),
			Release: r.Digest, Revision: r.Revision, Slot: n + 1, N: 1, State: engine.Running,
			StartedAt: benchNow.Add(-time.Minute), Route: route, Asked: true, Well: true, EverWell: true,
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte((from + n) >> 8), byte(from + n)}), 8080)}
		in.Instances = append(in.Instances, i)
	}
	sortInstances(in)
	if route != In {
		return
	}
	for _, i := range in.Instances {
		in.Proxy.Targets = append(in.Proxy.Targets, proxy.Target{Instance: i.Name, Addr: i.Addr, Weight: 1})
	}
}

func sortInstances(in *Input) {
	slices.SortFunc(in.Instances, func(a, b Instance) int { return cmp.Compare(a.Name, b.Name) })
}
