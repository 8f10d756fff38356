package spec

import (
	"net/netip"
	"path"
	"slices"
	"sync"
	"time"
)

// The table is the same for every file; a hundred files are read at once.
var (
	serviceTable = sync.OnceValue(serviceKeys)
	servicePaths = sync.OnceValue(func() []string { return serviceTable().schema().paths("") })
)

// service reads a whole definition: the keys, then the defaults that depend on
// other keys, then the rules between keys.
func (d *decoder) service(id string, data []byte) Service {
	s := Service{ID: id, File: d.file, Container: defaultContainer(), Policy: defaultPolicy()}
	if !ValidID(id) {
		d.fail(position{}, "an id has "+idRule, "%s is not a valid service id", quote(id))
	}
	ks := serviceTable()
	d.paths, d.foreign = servicePaths(), foreignKeys
	root, ok := d.load(data)
	if !ok {
		return s
	}
	ks.read(root, &s, "image")
	d.defaults(&s)
	d.rules(&s)
	return s
}

func defaultContainer() Container {
	return Container{Init: true, StopGracePeriod: Duration(10 * time.Second)}
}

func defaultPolicy() Policy {
	return Policy{
		PullPolicy: PullMissing,
		Replicas:   1,
		Retain:     3,
		Health: Health{
			Interval: Duration(5 * time.Second), Timeout: Duration(2 * time.Second),
			UnhealthyAfter: 3, StartTimeout: Duration(60 * time.Second),
		},
		Upgrade: Upgrade{Order: StartFirst, DrainTimeout: Duration(30 * time.Second)},
	}
}

// uptime is how long a worker without a check must have run to be healthy.
const uptime = 5 * time.Second

// defaults fills in what depends on other keys.
func (d *decoder) defaults(s *Service) {
	p := &s.Policy
	if p.Kind == "" {
		p.Kind = Worker
		if p.HTTP != nil {
			p.Kind = Web
		}
	}
	if p.Kind == Job {
		p.Replicas = 0
	}
	if l := &s.Container.Logging; l.Driver == "" || l.Driver == "local" {
		l.Driver = "local"
		if l.Options == nil {
			l.Options = map[string]string{"max-size": "10m", "max-file": "3"}
		}
	}
	if h := p.HTTP; h != nil && !d.has("http.listen") {
		h.Listen.Port = 80
		if h.TLS != nil {
			h.Listen.Port = 443
		}
	}
	h := &p.Health
	switch {
	case d.has("health.command"):
		h.Kind = HealthCommand
	case d.has("health.tcp"):
		h.Kind = HealthTCP
	case d.has("health.path") || p.HTTP != nil:
		h.Kind = HealthHTTP
		low, high := 200, 299
		if h.Path == "" {
			h.Path, high = "/", 399
		}
		if h.StatusMin == 0 {
			h.StatusMin, h.StatusMax = low, high
		}
	default:
		h.Kind, h.Uptime = HealthUptime, Duration(uptime)
	}
}

// rules are what must hold between keys.
func (d *decoder) rules(s *Service) {
	d.kindRules(s)
	d.healthRules(s)
	d.portRules(s)
	d.mountRules(s)
	for name := range s.Container.Secrets {
		if _, both := s.Container.Environment[name]; both {
			d.failAt("secrets."+name, "keep one of them", "is in environment too")
		}
	}
	if h := s.Policy.HTTP; h != nil && h.TLS != nil && h.TLS.Redirect && h.Listen.Port == 80 {
		d.failAt("http.tls.redirect", "let http.listen be another port", "port 80 is where TLS itself listens")
	}
	if s.Policy.Recycle != nil {
		switch {
		case !d.has("recycle.every"):
			d.failAt("recycle", "write recycle: {every: 24h}", "needs every")
		case s.Policy.Upgrade.Order == StopFirst:
			d.failAt("recycle", "write upgrade: {order: start-first}, or remove recycle", "nobody would serve meanwhile: the order of upgrades is stop-first")
		}
	}
	for i, on := range s.Policy.DependsOn {
		if on == s.ID {
			d.failAt("depends_on", "", "the service cannot depend on itself")
		}
		if slices.Contains(s.Policy.DependsOn[:i], on) {
			d.failAt("depends_on", "", "%s is written twice", on)
		}
	}
}

// kindRules: which keys go with which kind.
func (d *decoder) kindRules(s *Service) {
	kind := s.Policy.Kind
	if kind == Web && s.Policy.HTTP == nil && !d.has("http") {
		d.failAt("kind", "write http: {port: …}, or kind: worker", "web needs http")
	}
	if kind != Web && d.has("http") {
		d.failAt("http", "remove http, or write kind: web", "a %s has no route", kind)
	}
	if kind != Job {
		return
	}
	for _, key := range []string{"replicas", "health", "ports", "recycle"} {
		if d.has(key) {
			d.failAt(key, "remove it, or write kind: worker", "a job has nothing long-running")
		}
	}
}

// healthRules: one check, and only its own keys.
func (d *decoder) healthRules(s *Service) {
	h := s.Policy.Health
	first := ""
	for _, key := range []string{"path", "tcp", "command"} {
		switch {
		case !d.has("health." + key):
		case first == "":
			first = key
		default:
			d.failAt("health."+key, "keep one of path, tcp and command", "there is health.%s already", first)
		}
	}
	if d.has("health.path") && !d.has("http") {
		d.failAt("health.path", "write http: {port: …}, or health: {tcp: PORT}", "needs http")
	}
	for _, key := range []string{"headers", "status"} {
		if d.has("health."+key) && h.Kind != HealthHTTP {
			d.failAt("health."+key, "", "is for a check by path alone")
		}
	}
	if h.Kind == HealthUptime && h.StartTimeout <= h.Uptime {
		d.failAt("health.start_timeout", "", "must be more than %s, the time that a worker must have run", h.Uptime)
	}
}

// portRules: a published port can be had by one instance at a time.
func (d *decoder) portRules(s *Service) {
	if len(s.Container.Ports) == 0 || s.Policy.Kind == Job {
		return
	}
	if s.Policy.Replicas != 1 {
		d.failAt("ports", "write replicas: 1, or let the proxy reach it with http", "only one instance can have a published port, and replicas is %d", s.Policy.Replicas)
	}
	if s.Policy.Upgrade.Order != StopFirst {
		d.failAt("ports", "write upgrade: {order: stop-first}", "a published port is free only when the old instance has stopped")
	}
	for i, p := range s.Container.Ports {
		if slices.ContainsFunc(s.Container.Ports[:i], p.overlaps) {
			d.failAt("ports", "", "port %d/%s of the host is published twice", p.Published, p.Protocol)
		}
	}
}

// overlaps reports whether two containers cannot publish both ports at once.
func (p Port) overlaps(q Port) bool {
	return p.Published == q.Published && p.Protocol == q.Protocol &&
		(p.HostIP == q.HostIP || p.anywhere() || q.anywhere())
}

// anywhere reports whether the port is published on all of the host's addresses.
func (p Port) anywhere() bool {
	a, err := netip.ParseAddr(p.HostIP)
	return err != nil || a.IsUnspecified()
}

// mountRules: one mount a path.
func (d *decoder) mountRules(s *Service) {
	seen := map[string]bool{}
	once := func(key, target string) {
		if seen[target] {
			d.failAt(key, "", "something is mounted at %s already", target)
		}
		seen[target] = true
	}
	for _, v := range s.Container.Volumes {
		once("volumes", v.Target)
	}
	for _, t := range s.Container.Tmpfs {
		once("tmpfs", tmpfsTarget(t))
	}
	for name, secret := range s.Container.Secrets {
		if secret.As == AsFile {
			once("secrets."+name, path.Join("/run/secrets", name))
		}
	}
}
