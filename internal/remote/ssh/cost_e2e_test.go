//go:build e2e

package ssh

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/remote"
)

// What a session costs, and what goes through it beside scp, is logged (-v).
// That a lot goes through is checked by what comes out at the other end.
func TestDo_Cost(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	start := time.Now()
	does(t, tr, s.host())
	first := time.Since(start)
	var took []time.Duration
	for range 20 {
		start := time.Now()
		does(t, tr, s.host())
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("first session, handshake included: %s; 20 more: median %s, slowest %s; handshakes: %d", first, took[10], took[19], s.logged("Accepted publickey"))

	const size = 100 << 20
	b := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	file := s.file("upload")
	must(t, os.WriteFile(file, b, 0o600))
	for range 3 {
		f, err := os.Open(file)
		must(t, err)
		var out strings.Builder
		start = time.Now()
		must(t, tr.Do(t.Context(), s.host(), remote.Request{Do: remote.Exec, Args: []string{"count"}}, remote.Streams{Stdin: f, Stdout: &out}))
		up := time.Since(start)
		must(t, f.Close())
		if out.String() != fmt.Sprintln(size) {
			t.Errorf("%q bytes arrived, of %d", out.String(), size)
		}
		start = time.Now()
		if out, err := exec.Command("scp", "-O", "-q", "-F", s.config, file, "web1:/dev/null").CombinedOutput(); err != nil {
			t.Fatalf("scp: %v: %s", err, out)
		}
		scp := time.Since(start)
		t.Logf("100 MiB: %.0f MB/s by a session, %.0f MB/s by scp (%.0f%%)", size/1e6/up.Seconds(), size/1e6/scp.Seconds(), 100*scp.Seconds()/up.Seconds())
	}
}
