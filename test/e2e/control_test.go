//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// control is a client of the supervisor's socket.
func (e *Env) control() *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.socket())
	}}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// socket is where its supervisor can be watched.
func (e *Env) socket() string { return e.RunDir() + ".sock" }

// supervised starts a supervisor, and waits until it can be watched.
func (e *Env) supervised(args ...string) *Proc {
	e.t.Helper()
	p := e.Start(append([]string{"supervise"}, args...)...)
	eventually(e.t, 10*time.Second, "the supervisor is alive", func() bool {
		r, err := e.control().Get("http://conductor/healthz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return p
}

func (e *Env) fetch(c *http.Client, url string, code int) string {
	e.t.Helper()
	r, err := c.Get(url)
	must(e.t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	must(e.t, err)
	if r.StatusCode != code {
		e.t.Fatalf("%s: %s, want %d\n%s", url, r.Status, code, b)
	}
	return string(b)
}

// sample is the value of the first metric whose labels are all of those given.
func sample(text, name string, labels ...string) (value float64, ok bool) {
	for line := range strings.Lines(text) {
		rest, is := strings.CutPrefix(line, name)
		if !is || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		all := true
		for _, l := range labels {
			all = all && strings.Contains(rest, l)
		}
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' '):], &value); all && err == nil {
			return value, true
		}
	}
	return 0, false
}

// A death and its replacement can be watched, and are counted.
func TestControl_ShowsADeath(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, Def{"replicas": "2", "limits": "{memory: 64m}"})
	p := e.supervised()
	c := e.control()
	fi, err := os.Lstat(e.socket())
	must(t, err)
	if fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket's mode is %s", fi.Mode())
	}
	before := e.fetch(c, "http://conductor/metrics", 200)
	if n, ok := sample(before, "conductor_restarts_total", `service="shop"`, `reason="exited"`); !ok || n != 0 {
		t.Errorf("%v restarts before any (%v)", n, ok)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://conductor/v1/events?id=shop", nil)
	must(t, err)
	stream, err := c.Do(req)
	must(t, err)
	defer stream.Body.Close()
	dead := e.killOne("shop")
	var replacement string
	lines := bufio.NewReader(stream.Body)
	for _, want := range []string{"created", "started", "routed"} {
		for {
			line, err := lines.ReadBytes('\n')
			must(t, err)
			var ev struct{ Event, Service, Container, Reason, Cause string }
			must(t, json.Unmarshal(line, &ev))
			if ev.Service != "shop" {
				t.Errorf("an event of another service: %s", line)
			}
			if ev.Event != want {
				continue
			}
			if want == "created" {
				replacement = ev.Container
				if ev.Reason != "exited" || !strings.Contains(ev.Cause, "exited 137") {
					t.Errorf("why it is replaced: %s", line)
				}
			}
			break
		}
	}
	e.restored("shop", 2, dead)
	e.serves("shop", 2)
	if cs := e.IDs("shop"); !strings.Contains(strings.Join(cs, " "), replacement) {
		t.Errorf("%s was created, and %v run", replacement, cs)
	}
	e.Upgrade("shop", "v2").Want(0) // by another process
	var after string
	// It does something by the clock after a quarter of a minute with no news.
	eventually(t, 40*time.Second, "the metrics tell", func() bool {
		after = e.fetch(c, "http://conductor/metrics", 200)
		n, _ := sample(after, "conductor_service_state", `service="shop"`, `state="running"`)
		up, _ := sample(after, "conductor_upgrades_total", `service="shop"`, `outcome="ok"`)
		late, _ := sample(after, "conductor_loop_lag_seconds_count")
		return n == 1 && up == 1 && late > 0
	})
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"conductor_restarts_total", []string{`service="shop"`, `reason="exited"`}, 1},
		{"conductor_restarts_total", []string{`service="shop"`, `reason="unhealthy"`}, 0},
		{"conductor_service_replicas", []string{`service="shop"`}, 2},
		{"conductor_service_healthy", []string{`service="shop"`}, 2},
		{"conductor_instances", []string{`revision="v2"`, `state="running"`, `health="healthy"`}, 2},
		{"conductor_instance_memory_limit_bytes", []string{`service="shop"`}, 64 << 20},
		{"conductor_upgrade_duration_seconds_count", []string{`service="shop"`}, 1},
		{"conductor_status_up", nil, 1},
	} {
		if n, ok := sample(after, want.name, want.labels...); !ok || n != want.value {
			t.Errorf("%s%v is %v (%v), want %v", want.name, want.labels, n, ok, want.value)
		}
	}
	for _, name := range []string{"conductor_instance_memory_bytes", "conductor_instance_cpu_seconds_total", "conductor_probe_duration_seconds_count",
		"conductor_loop_lag_seconds_count", "process_resident_memory_bytes", "conductor_build_info"} {
		if n, ok := sample(after, name); !ok || n <= 0 {
			t.Errorf("%s is %v (%v)", name, n, ok)
		}
	}
	conventional(t, after)

	p.Signal(syscall.SIGTERM)
	began := time.Now()
	p.Wait().Want(0)
	within(t, time.Second, time.Since(began), "its end, with a stream open")
	if rest, err := io.ReadAll(lines); err != nil {
		t.Errorf("the stream has no clean end: %v\n%s", err, rest)
	}
	if _, err := os.Lstat(e.socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// conventional: the metrics follow Prometheus' conventions, as promtool knows
// them, and what the alert rules and the dashboard ask for is among them.
func conventional(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	for _, file := range []string{"prometheus/alerts.yml", "grafana/conductor.json"} {
		b, err := os.ReadFile("../../contrib/" + file)
		must(t, err)
		names := regexp.MustCompile(`\b(conductor|process)_[a-z_]+\b`).FindAllString(string(b), -1)
		for _, name := range names {
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
		if len(names) == 0 {
			t.Errorf("%s asks for nothing", file)
		}
	}
}

// What the socket says of the services is what the command says, who asks
// there, and also what it sees itself where nobody answers: of definitions that
// have come or changed since the supervisor began, too.
func TestControl_StatusIsTheCommands(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, Def{"replicas": "2"})
	p := e.supervised()
	e.Web("blog", nil)
	e.serves("shop", 2)
	type answers struct{ socket, asked []map[string]any }
	said := map[string]answers{}
	command := func(ids []string) Run {
		args := []string{"--output", "json", "service", "status"}
		for _, id := range ids {
			args = append(args, "--id", id)
		}
		return e.Conductor(args...).Want(0)
	}
	which := [][]string{nil, {"shop"}, {"blog", "shop"}}
	for _, ids := range which {
		query := url.Values{"id": ids}.Encode()
		said[fmt.Sprint(ids)] = answers{steady(t, e.fetch(e.control(), "http://conductor/v1/status?"+query, 200)), steady(t, command(ids).Stdout)}
	}
	text := e.fetch(e.control(), "http://conductor/v1/status?id=nobody", 404)
	if !strings.Contains(text, "nobody") || !strings.Contains(text, `"error"`) {
		t.Error(text)
	}
	e.fetch(e.control(), "http://conductor/v1/status?as=another", 409)
	e.Conductor("service", "status", "--id", "nobody").Want(3, "nobody")

	// A stopped process takes connections, and answers nothing.
	must(t, syscall.Kill(p.PID(), syscall.SIGSTOP))
	defer syscall.Kill(p.PID(), syscall.SIGCONT)
	for _, ids := range which {
		r := command(ids)
		if r.Took < 3*time.Second {
			t.Errorf("the supervisor was not asked: %s", r)
		}
		s := said[fmt.Sprint(ids)]
		for who, got := range map[string][]map[string]any{"socket": s.socket, "command that asks there": s.asked} {
			if alone := steady(t, r.Stdout); !reflect.DeepEqual(got, alone) {
				t.Errorf("of %v the %s says\n%v\nand the command alone\n%v", ids, who, got, alone)
			}
		}
	}
}

// steady reads a status without what is measured anew each time.
func steady(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &all))
	if len(all) == 0 {
		t.Errorf("no services: %s", text)
	}
	for _, s := range all {
		for _, i := range s["instances"].([]any) {
			for _, measured := range []string{"cpu", "memory", "in_flight"} {
				delete(i.(map[string]any), measured)
			}
		}
	}
	return all
}

// At an address there are metrics and no more; what a killed supervisor left is
// replaced; an address that is taken is told.
func TestControl_ListensWhereItIsAsked(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, Def{"replicas": "1"})
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := e.supervised("--listen", addr)
	e.Conductor("supervise", "--listen", addr).Want(7) // there is one
	e.fetch(e.control(), "http://conductor/healthz", 200)
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if _, err := os.Lstat(e.socket()); err != nil {
		t.Fatalf("the case is that it is left behind: %v", err)
	}
	p = e.supervised("--listen", addr)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if n, ok := sample(e.fetch(c, "http://"+addr+"/metrics", 200), "conductor_service_healthy", `service="shop"`); !ok || n != 1 {
		t.Errorf("%v healthy (%v)", n, ok)
	}
	e.fetch(c, "http://"+addr+"/healthz", 200)
	for _, secret := range []string{"/v1/status", "/v1/events"} {
		e.fetch(c, "http://"+addr+secret, 404)
	}
	// A loop that stands still does not answer that it is alive.
	must(t, syscall.Kill(p.PID(), syscall.SIGSTOP))
	eventually(t, 5*time.Second, "it stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	c.Timeout = 200 * time.Millisecond
	if r, err := c.Get("http://" + addr + "/healthz"); err == nil {
		r.Body.Close()
		t.Errorf("a stopped process says %s", r.Status)
	}
	must(t, syscall.Kill(p.PID(), syscall.SIGCONT))
	p.Signal(syscall.SIGTERM)
	p.Wait().Want(0)

	l, err := net.Listen("tcp", addr)
	must(t, err)
	defer l.Close()
	e.Conductor("supervise", "--listen", addr).Want(9, addr, "--listen")
	// Where there is something else in the socket's place, it does its work.
	must(t, os.WriteFile(e.socket(), []byte("mine"), 0o600))
	p = e.Start("supervise")
	p.Until("warning", 1)
	e.restored("shop", 1, e.killOne("shop"))
	p.Signal(syscall.SIGTERM)
	p.Wait().Want(0, "no socket")
	if b, err := os.ReadFile(e.socket()); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}
