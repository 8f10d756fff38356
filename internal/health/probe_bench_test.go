package health

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"conductor/internal/spec"
)

// A probe is what a supervisor does most: 100 containers are 72,000 an hour.
func BenchmarkProbe(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }))
	defer s.Close()
	i := Instance{Addr: netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://")), Host: "shop.test"}
	h := spec.Health{Kind: spec.HealthHTTP, Path: "/health", Timeout: spec.Duration(5 * time.Second)}
	p := New(nil)
	b.ReportAllocs()
	for b.Loop() {
		if r := p.Probe(b.Context(), i, h); !r.OK {
			b.Fatal(r.Text)
		}
	}
}
