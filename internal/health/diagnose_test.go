package health

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

const tableHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestParseListeners_Tables(t *testing.T) {
	got := parseListeners(tableHead +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 61045 1 0000000000000000 100 0 0 10 0\n" +
		"   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 61046 1\n" +
		"   2: 0B00007F:A3C5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 61047 1\n" + // the engine's DNS
		"   3: 0200090A:0BB8 0100090A:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 61048 1\n" + // established
		"   4: 0200090A:0050 00000000:0000 0A\n")
	if s := fmt.Sprint(got); s != "[127.0.0.1:8080 0.0.0.0:3000 10.9.0.2:80]" {
		t.Error(s)
	}
	got = parseListeners(tableHead +
		"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n" +
		"   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 0\n" +
		"   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 0\n" +
		"   3: B80D0120000000000000000001000000:1F93 00000000000000000000000000000000:0000 0A 0\n")
	if s := fmt.Sprint(got); s != "[[::]:8080 [::1]:8081 127.0.0.1:8082 [2001:db8::1]:8083]" {
		t.Error(s)
	}
	for _, bad := range []string{"", tableHead, "   0: 0100007F 0 0A", "   0: 01:1F90 0 0A", "   0: 0100007F:XXXX 0 0A", "   0: zz00007F:1F90 0 0A", "\x00"} {
		if got := parseListeners(bad); len(got) != 0 {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add(tableHead + "   0: 0100007F:1F90 00000000:0000 0A\n")
	f.Fuzz(func(t *testing.T, table string) {
		for _, a := range parseListeners(table) {
			if !a.IsValid() {
				t.Errorf("%v", a)
			}
		}
	})
}

// procWith makes a /proc in which process 7 listens on the addresses.
func procWith(t *testing.T, addrs ...string) string {
	t.Helper()
	tables := map[string]*strings.Builder{"tcp": {}, "tcp6": {}}
	for _, b := range tables {
		b.WriteString(tableHead)
	}
	for _, s := range addrs {
		a := netip.MustParseAddrPort(s)
		raw, name := a.Addr().AsSlice(), "tcp"
		if a.Addr().Is6() {
			name = "tcp6"
		}
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4]) // as a little-endian machine prints it
		}
		fmt.Fprintf(tables[name], "   0: %X:%04X 0:0000 0A 0\n", raw, a.Port())
	}
	proc := t.TempDir()
	for name, b := range tables {
		path := filepath.Join(proc, "7", "net", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(b.String()), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

func TestDiagnose_RunningContainers(t *testing.T) {
	const refused = "GET :1/health: connection refused"
	http := spec.Health{Kind: spec.HealthHTTP, Path: "/health", Timeout: spec.Duration(2 * time.Second), StartTimeout: spec.Duration(time.Minute)}
	answer := func(status int, text, location, body string) *Result {
		return &Result{Status: status, Text: "GET :1/health: " + text, Location: location, Body: body}
	}
	for name, test := range map[string]struct {
		listens []string
		health  spec.Health
		last    *Result
		want    string
	}{
		"another port": {listens: []string{"0.0.0.0:3000"}, health: http,
			want: refused + "; the container listens on 0.0.0.0:3000: set http.port: 3000"},
		"another port on both": {listens: []string{"0.0.0.0:3000", "[::]:3000"}, health: http,
			want: refused + "; the container listens on 0.0.0.0:3000 and [::]:3000: set http.port: 3000"},
		"other ports": {listens: []string{"0.0.0.0:3000", "0.0.0.0:9090", "127.0.0.1:5000"}, health: http,
			want: refused + "; the container listens on 0.0.0.0:3000 and 0.0.0.0:9090: set http.port to the right one of them"},
		"another port of tcp": {listens: []string{"[::]:5432"}, health: spec.Health{Kind: spec.HealthTCP, Port: 1},
			last: &Result{Refused: true, Text: "tcp :1: connection refused"},
			want: "tcp :1: connection refused; the container listens on [::]:5432: set health.tcp: 5432"},
		"loopback": {listens: []string{"127.0.0.1:1"}, health: http,
			want: refused + "; the container listens on 127.0.0.1:1 only: bind 0.0.0.0 (or ::)"},
		"loopback of IPv6": {listens: []string{"[::1]:1"}, health: http,
			want: refused + "; the container listens on [::1]:1 only: bind 0.0.0.0 (or ::)"},
		"loopback and another port": {listens: []string{"127.0.0.1:1", "0.0.0.0:9090"}, health: http,
			want: refused + "; the container listens on 127.0.0.1:1 only: bind 0.0.0.0 (or ::)"},
		"loopback of another port": {listens: []string{"127.0.0.1:3000"}, health: http,
			want: refused + "; the container listens on 127.0.0.1:3000 only: bind 0.0.0.0 (or ::), and set http.port: 3000"},
		"loopback of other ports": {listens: []string{"127.0.0.1:3000", "127.0.0.1:4000"}, health: http,
			want: refused + "; the container listens on 127.0.0.1:3000 and 127.0.0.1:4000 only: bind 0.0.0.0:1"},
		"IPv6 only": {listens: []string{"[::]:1"}, health: http,
			want: refused + "; the container listens on [::]:1 for IPv6 only: bind 0.0.0.0"},
		"nothing": {health: http,
			want: refused + "; the container listens on nothing after 60 s"},
		"redirect to https": {health: http, last: answer(301, "301 to https://shop.example.com/health", "https://shop.example.com/health", ""),
			want: "GET :1/health: 301 to https://shop.example.com/health: set health.headers: {X-Forwarded-Proto: https}"},
		"redirect to a name": {health: http, last: answer(302, "302 to http://www.example.com/", "http://www.example.com/", ""),
			want: "GET :1/health: 302 to http://www.example.com/: set health.headers: {Host: www.example.com}"},
		"redirect to a page": {health: http, last: answer(302, "302 to /login", "/login?next=1", "<a href>"),
			want: "GET :1/health: 302 to /login: set health.path: /login, or one that answers by itself"},
		"500": {health: http, last: answer(500, "500 Internal Server Error", "", "undefined method"),
			want: "GET :1/health: 500 Internal Server Error: undefined method"},
		"404": {health: http, last: answer(404, "404 Not Found", "", ""),
			want: "GET :1/health: 404 Not Found: set health.path to one that the application has"},
		"400": {health: http, last: answer(400, "400 Bad Request", "", "DisallowedHost"),
			want: "GET :1/health: 400 Bad Request: DisallowedHost: set health.headers: {Host: …} to a name that the application accepts"},
		"403": {health: http, last: answer(403, "403 Forbidden", "", ""),
			want: "GET :1/health: 403 Forbidden: set health.path to one that needs no login"},
		"slow": {listens: []string{"0.0.0.0:1"}, health: http, last: &Result{Text: "GET :1/health: no answer within 2 s"},
			want: "GET :1/health: no answer within 2 s; the container listens on 0.0.0.0:1 and does not answer"},
		"command": {health: spec.Health{Kind: spec.HealthCommand, Command: []string{"bin/check"}}, last: &Result{Text: "bin/check: exit 3: x", Exit: 3},
			want: "bin/check: exit 3: x"},
	} {
		t.Run(name, func(t *testing.T) {
			last := test.last
			if last == nil {
				last = &Result{Refused: true, Text: refused}
			}
			c := engine.Container{ID: "c", State: engine.Running, PID: 7, StartedAt: time.Now().Add(-time.Minute)}
			// Nothing listens at port 1 of this machine.
			i := Instance{Container: "c", Addr: netip.MustParseAddrPort("127.0.0.1:1"), Host: "shop.example.com", Proto: "http"}
			d := diagnose(t.Context(), procWith(t, test.listens...), &fakeEngine{}, i, test.health, last, c)
			if d.Summary != test.want {
				t.Errorf("got  %s\nwant %s", d.Summary, test.want)
			}
			if d.Hint == "" || len(d.Lines) < 3 {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestDiagnose_ListensByNow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	c := engine.Container{ID: "c", State: engine.Running, PID: 7, StartedAt: time.Now().Add(-time.Minute)}
	d := diagnose(t.Context(), procWith(t, fmt.Sprintf("0.0.0.0:%d", at.Port())), &fakeEngine{}, Instance{Addr: at},
		spec.Health{Kind: spec.HealthTCP}, &Result{Refused: true, Text: "tcp :1: connection refused"}, c)
	if want := fmt.Sprintf("tcp :1: connection refused, until now: it listens on 0.0.0.0:%d after 60 s: raise health.start_timeout", at.Port()); d.Summary != want {
		t.Errorf("got  %s\nwant %s", d.Summary, want)
	}
}

func TestDiagnose_EndedContainers(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ended := func(code int, after time.Duration) engine.Container {
		return engine.Container{ID: "c", State: engine.Exited, ExitCode: code, StartedAt: start, FinishedAt: start.Add(after)}
	}
	oom := ended(137, 2300*time.Millisecond)
	oom.OOMKilled = true
	missing := engine.Container{ID: "c", State: engine.Created, ExitCode: 127,
		Error: `OCI runtime create failed: exec: "bin/server": executable file not found in $PATH: unknown`}
	full := engine.Container{ID: "c", State: engine.Created, Error: "write /var/lib/docker/containers/c/hosts: no space left on device"}
	for name, test := range map[string]struct {
		c      engine.Container
		memory int64
		log    string
		want   string
	}{
		"exit code":         {ended(1, 400*time.Millisecond), 0, "", "exited 1 after 0.4 s"},
		"with a log":        {ended(3, 12*time.Second), 0, "first\n\x1b[31mno database\x1b[0m\n", "exited 3 after 12 s, log: no database"},
		"at once":           {ended(2, -time.Millisecond), 0, "x\n", "exited 2 at once, log: x"},
		"zero":              {ended(0, time.Second), 0, "", "exited 0 after 1 s: its command has to stay in the foreground"},
		"signal":            {ended(139, time.Minute), 0, "", "killed by SIGSEGV after 60 s"},
		"killed at a limit": {ended(137, time.Second), 64 << 20, "", "killed by SIGKILL after 1 s, perhaps for being out of memory, limits.memory is 64 MiB"},
		"no such address": {ended(1, time.Second), 0, "bind: cannot assign requested address\n",
			"exited 1 after 1 s, log: bind: cannot assign requested address: bind 0.0.0.0; the container has no such address (::1 where the network has no IPv6)"},
		"the init lacks the command": {ended(127, time.Second), 0, "[FATAL tini (7)] exec bin/server failed: No such file or directory\n",
			"exited 127 after 1 s, log: [FATAL tini (7)] exec bin/server failed: No such file or directory: set command to one that the image has, or build an image with it"},
		"killed":                  {ended(137, time.Second), 0, "", "killed by SIGKILL after 1 s"},
		"no signal":               {ended(255, time.Second), 0, "", "exited 255 after 1 s"},
		"out of memory":           {oom, 64 << 20, "x\n", "killed by the kernel after 2.3 s: out of memory, limits.memory is 64 MiB: set limits.memory higher, or let it use less"},
		"out of memory, no limit": {oom, 0, "", "killed by the kernel after 2.3 s: out of memory: the host has too little memory for it"},
		"missing command": {missing, 0, "", `it cannot be started: OCI runtime create failed: exec: "bin/server": executable file not found in $PATH: unknown` +
			": set command to one that the image has, or build an image with it"},
		"no room":       {full, 0, "", "it cannot be started: write /var/lib/docker/containers/c/hosts: no space left on device"},
		"never started": {engine.Container{ID: "c", State: engine.Created}, 0, "", "its container was not started"},
		"gone":          {engine.Container{}, 0, "", "its container is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &fakeEngine{logs: func(stdout, stderr io.Writer) error {
				_, err := io.WriteString(stderr, test.log)
				if err == nil && test.log != "" {
					_, err = io.WriteString(stdout, "ready\n") // the engine may have them in another order
				}
				return err
			}}
			// The last answer is older than the end, and says less.
			d := Diagnose(t.Context(), e, Instance{Memory: test.memory}, spec.Health{Kind: spec.HealthHTTP}, &Result{Refused: true, Text: "refused"}, test.c)
			if d.Summary != test.want {
				t.Errorf("got  %s\nwant %s", d.Summary, test.want)
			}
			if d.Hint == "" {
				t.Error("no hint")
			}
			if d.HostFull != (name == "no room") {
				t.Errorf("for want of room on the host: %v", d.HostFull)
			}
			if test.log != "" && d.Log[len(d.Log)-1] != "ready" {
				t.Errorf("log %q", d.Log)
			}
		})
	}
}

func TestDiagnose_EndsMeanwhile(t *testing.T) {
	e := &fakeEngine{
		inspect: func() (engine.Container, error) {
			return engine.Container{ID: "c", State: engine.Exited, ExitCode: 3, StartedAt: time.Unix(1, 0), FinishedAt: time.Unix(2, 0)}, nil
		},
		logs: func(io.Writer, io.Writer) error { return errors.New("no such container") },
	}
	c := engine.Container{ID: "c", State: engine.Running, PID: 7, StartedAt: time.Unix(1, 0)}
	d := diagnose(t.Context(), t.TempDir(), e, Instance{}, spec.Health{Kind: spec.HealthHTTP}, &Result{Refused: true, Text: "refused"}, c)
	if d.Summary != "exited 3 after 1 s" || !slices.Contains(d.Lines, "its log cannot be read: no such container") {
		t.Errorf("%+v", d)
	}
}

func TestSeconds_AsPeopleSayIt(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 40 * time.Millisecond: "40 ms", 400 * time.Millisecond: "0.4 s", 5 * time.Second: "5 s",
		9960 * time.Millisecond: "10 s", 61400 * time.Millisecond: "61 s", 2100 * time.Millisecond: "2.1 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{64 << 20: "64 MiB", 1536 << 20: "1.5 GiB", 100: "100 bytes", 1 << 50: "1024 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}
