//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"conductor/test/image"
	"conductor/test/load"
)

// prefix begins the name of everything that these tests make.
const prefix = "ct-e2e"

// Env is one installation of conductor, with its own namespace and nginx.
type Env struct {
	t         testing.TB
	Namespace string
	Dir       string // conductor.yml, services/, state/, nginx/
	Engine    *image.Engine
	Nginx     *Nginx
	config    map[string]string
}

// New sets an installation up. It is taken down when the test ends.
func New(t testing.TB) *Env {
	t.Helper()
	return newAt(t, image.NewEngine(socket()))
}

// newAt sets an installation up with another engine than the machine's.
func newAt(t testing.TB, engine *image.Engine) *Env {
	t.Helper()
	e := &Env{t: t, Namespace: newNamespace(), Engine: engine}
	e.Dir = filepath.Join(os.TempDir(), e.Namespace)
	for _, dir := range []string{"", "services", "nginx", "cron.d"} {
		must(t, os.Mkdir(filepath.Join(e.Dir, dir), 0o755))
	}
	t.Cleanup(e.tearDown)
	e.Nginx = newNginx(t, filepath.Join(e.Dir, "nginx"))
	e.config = map[string]string{
		"namespace": e.Namespace,
		"state_dir": filepath.Join(e.Dir, "state"),
		"cron_dir":  filepath.Join(e.Dir, "cron.d"),
		"engine":    "{host: unix://" + engine.Socket + "}",
	}
	e.Proxy(nil)
	e.Nginx.Start()
	return e
}

// newNamespace is a name that tells when it was made, for sweep: six digits of
// the time, then chance.
func newNamespace() string {
	b := make([]byte, 5)
	rand.Read(b)
	id := strings.ToLower(base32.StdEncoding.EncodeToString(b))[:4]
	return prefix + "-" + strconv.FormatInt(time.Now().Unix(), 36) + id
}

// madeAt reads the time in a name that newNamespace made.
func madeAt(namespace string) (time.Time, bool) {
	at, ok := strings.CutPrefix(namespace, prefix+"-")
	if !ok || len(at) != 10 {
		return time.Time{}, false
	}
	s, err := strconv.ParseInt(at[:6], 36, 64)
	return time.Unix(s, 0), err == nil
}

// Config sets keys of conductor.yml, given as flow values; an empty value
// takes a key away.
func (e *Env) Config(keys map[string]string) {
	e.t.Helper()
	maps.Copy(e.config, keys)
	e.write("conductor.yml", flow(e.config))
}

// Proxy sets keys below proxy in conductor.yml, over those of the private nginx.
func (e *Env) Proxy(keys map[string]string) {
	e.t.Helper()
	p := map[string]string{
		"config_dir": e.Nginx.ConfD(),
		"test":       list(e.Nginx.Command("-t")),
		"reload":     list(e.Nginx.Command("-s", "reload")),
	}
	maps.Copy(p, keys)
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		parts = append(parts, k+": "+p[k])
	}
	e.Config(map[string]string{"proxy": "{" + strings.Join(parts, ", ") + "}"})
}

// Def is a definition: key → value in YAML's flow style.
type Def map[string]string

// Web writes the definition of a web service, with def over the defaults, and
// returns the address at which the proxy serves it.
func (e *Env) Web(id string, def Def) (addr string) {
	e.t.Helper()
	addr = fmt.Sprintf("127.0.0.1:%d", freePort(e.t))
	d := Def{
		"image":             e.Repo(),
		"pull_policy":       "missing",
		"replicas":          "2",
		"environment":       "{SERVICE: " + id + "}",
		"stop_grace_period": "3s",
		"http":              "{port: 8080, listen: '" + addr + "'}",
		"health":            "{path: /health, interval: 500ms, start_timeout: 15s}",
		"upgrade":           "{drain_timeout: 5s}",
	}
	maps.Copy(d, def)
	if h := d["http"]; strings.Contains(h, "LISTEN") {
		d["http"] = strings.ReplaceAll(h, "LISTEN", "'"+addr+"'")
	}
	e.Service(id, flow(d))
	return addr
}

// Service writes a definition as it is.
func (e *Env) Service(id, yaml string) {
	e.t.Helper()
	e.write("services/"+id+".yml", yaml)
}

// Repo is the image that Image makes revisions of.
func (e *Env) Repo() string { return e.Namespace + "-images/app" }

// Image makes a revision of the test application, with KEY=VALUE of its
// environment baked in; CMD=… is its command instead.
func (e *Env) Image(revision string, env ...string) {
	e.t.Helper()
	i := image.Image{
		Binary: binaries.app,
		Env:    map[string]string{"REVISION": revision},
		Labels: map[string]string{prefix: e.Namespace},
	}
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == "CMD" {
			i.Cmd = v
		} else {
			i.Env[k] = v
		}
	}
	must(e.t, e.Engine.Import(e.ctx(), e.Repo()+":"+revision, i))
}

// Images makes plain revisions.
func (e *Env) Images(revisions ...string) {
	e.t.Helper()
	for _, r := range revisions {
		e.Image(r)
	}
}

// Load starts a load that the test must stop, and waits until answers come.
func (e *Env) Load(cfg load.Config) *load.Running {
	e.t.Helper()
	l := load.Start(context.Background(), cfg)
	e.t.Cleanup(func() { l.Stop() })
	eventually(e.t, 10*time.Second, "the load gets answers", func() bool { return l.Good() > 20 })
	return l
}

// NoFailures ends the load and fails the test if a request did.
func (e *Env) NoFailures(l *load.Running) load.Result {
	e.t.Helper()
	r := l.Stop()
	if r.Failed != 0 || r.OK == 0 {
		e.t.Errorf("%d of %d requests failed:\n%s", r.Failed, r.Sent, r)
	}
	return r
}

// Containers lists this namespace's containers of the service, also dead ones;
// all services' for "".
func (e *Env) Containers(service string) []image.Container {
	e.t.Helper()
	labels := []string{"conductor.namespace=" + e.Namespace}
	if service != "" {
		labels = append(labels, "conductor.service="+service)
	}
	cs, err := e.Engine.Containers(e.ctx(), labels...)
	must(e.t, err)
	slices.SortFunc(cs, func(a, b image.Container) int { return strings.Compare(a.Name(), b.Name()) })
	return cs
}

// Instances tells the service's running containers as "revision" × count.
func (e *Env) Instances(service string) map[string]int {
	e.t.Helper()
	n := map[string]int{}
	for _, c := range e.Containers(service) {
		if c.State == "running" {
			n[c.Labels["conductor.revision"]]++
		}
	}
	return n
}

// WantInstances fails the test unless exactly these run.
func (e *Env) WantInstances(service string, want map[string]int) {
	e.t.Helper()
	if got := e.Instances(service); !maps.Equal(got, want) {
		e.t.Errorf("running instances of %s: %v, want %v", service, got, want)
	}
}

// State is what the engine's inspection says of a container.
type State struct {
	Running               bool
	ExitCode              int
	OOMKilled             bool
	PID                   int `json:"Pid"`
	StartedAt, FinishedAt time.Time
}

// Inspect asks the engine for a container's state.
func (e *Env) Inspect(id string) State {
	e.t.Helper()
	var c struct{ State State }
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+id+"/json", nil, nil, &c))
	return c.State
}

// Kill kills a container with SIGKILL, behind conductor's back.
func (e *Env) Kill(id string) {
	e.t.Helper()
	must(e.t, e.Engine.Do(e.ctx(), "POST", "/containers/"+id+"/kill", nil, nil, nil))
}

// IDs are the IDs of the service's running containers, ordered by name.
func (e *Env) IDs(service string) []string {
	e.t.Helper()
	var ids []string
	for _, c := range e.Containers(service) {
		if c.State == "running" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// Path is a path below the installation's folder.
func (e *Env) Path(name string) string { return filepath.Join(e.Dir, name) }

func (e *Env) write(name, text string) {
	e.t.Helper()
	must(e.t, os.WriteFile(e.Path(name), []byte(text), 0o644))
}

func (e *Env) ctx() context.Context { return context.Background() }

// flow writes a map as a YAML mapping, ordered by key.
func flow(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != "" {
			fmt.Fprintf(&b, "%s: %s\n", k, m[k])
		}
	}
	return b.String()
}

// list writes words as a YAML sequence.
func list(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = "'" + strings.ReplaceAll(w, "'", "''") + "'"
	}
	return "[" + strings.Join(q, ", ") + "]"
}

const (
	firstPort = 23000
	lastPort  = 23999
)

var ports struct {
	sync.Mutex
	next int
}

// freePort is a loopback port that nobody listens at. It is not handed out
// again before all others were.
func freePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		// Two runs at once begin at different places.
		ports.next = firstPort + os.Getpid()*37%(lastPort-firstPort)
	}
	for range lastPort - firstPort + 1 {
		p := ports.next
		if ports.next++; ports.next > lastPort {
			ports.next = firstPort
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err == nil {
			l.Close()
			return p
		}
	}
	t.Fatal("no free loopback port")
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f is true, and fails the test after d.
func eventually(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// repeat is how many times a test does something: few in script/test, many in
// script/soak.
func repeat(few, many int) int {
	if os.Getenv("CONDUCTOR_TEST_SOAK") != "" {
		return many
	}
	return few
}

// socket is where the machine's engine listens.
func socket() string {
	if s, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return s
	}
	return "/var/run/docker.sock"
}

// With is the same installation, reporting to a subtest.
func (e *Env) With(t testing.TB) *Env {
	c := *e
	c.t = t
	return &c
}
