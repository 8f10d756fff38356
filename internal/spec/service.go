// Package spec has the definitions that people and config management write:
// conductor.yml and one file a service on each host, and fleet.yml, from where
// all hosts are deployed to.
//
// It parses YAML with positions, fills in defaults, reports every mistake at
// once with file:line:column and a hint, and knows the JSON Schema of all three
// kinds of file. It does no I/O of its own (a file system is handed in), never asks the
// clock, and imports no other room but fault. Every room may import it.
package spec

import (
	"net/netip"
	"time"
)

// Kind is what a service is for.
type Kind string

const (
	Web    Kind = "web"    // has routes at the proxy
	Worker Kind = "worker" // long-running, no route
	Job    Kind = "job"    // nothing long-running: run and cron only
)

// Service is one definition: a container part, whose change replaces
// instances, and a policy, which is applied in place.
type Service struct {
	ID   string
	File string // where it was read, for messages

	Container Container
	Policy    Policy
}

// Container is the part of a definition that an instance is made from. It is
// stored whole with each release, so that a rollback brings it back. Secrets
// are in it by reference only.
type Container struct {
	// Image is the definition's image: a name to which the revision is added
	// as tag, or a template with {revision}. Use Reference.
	Image       string            `json:"image"`
	Command     []string          `json:"command,omitempty"`    // nil: the image's
	Entrypoint  []string          `json:"entrypoint,omitempty"` // nil: the image's; [""]: none
	WorkingDir  string            `json:"working_dir,omitempty"`
	User        string            `json:"user,omitempty"`
	Init        bool              `json:"init"` // default true
	ReadOnly    bool              `json:"read_only,omitempty"`
	Tmpfs       []string          `json:"tmpfs,omitempty"` // PATH[:OPTIONS]
	Volumes     []Volume          `json:"volumes,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	EnvFile     []EnvFile         `json:"env_file,omitempty"`
	Secrets     map[string]Secret `json:"secrets,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	CapAdd      []string          `json:"cap_add,omitempty"`
	CapDrop     []string          `json:"cap_drop,omitempty"`
	SecurityOpt []string          `json:"security_opt,omitempty"`
	Ulimits     map[string]Ulimit `json:"ulimits,omitempty"`
	Ports       []Port            `json:"ports,omitempty"`
	ShmSize     int64             `json:"shm_size,omitempty"` // bytes; 0: the engine's
	ExtraHosts  []string          `json:"extra_hosts,omitempty"`
	DNS         []string          `json:"dns,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Logging     Logging           `json:"logging"`
	StopSignal  string            `json:"stop_signal,omitempty"`
	// StopGracePeriod is the time between the stop signal and the kill; default 10 s.
	StopGracePeriod Duration `json:"stop_grace_period"`
	Limits          Limits   `json:"limits"`
	// HTTPPort is http.port: where an instance listens. It is written among
	// the routes, but belongs to what an instance is made from: a release
	// that is still serving must not be dialled at the port of the next one.
	// 0: not a web service.
	HTTPPort uint16 `json:"http_port,omitempty"`
}

// Volume is a bind mount or a named volume.
type Volume struct {
	Source   string `json:"source,omitempty"` // absolute path, or a volume's name; empty: anonymous
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// Bind is true where Source is a path of the host.
	Bind bool `json:"bind,omitempty"`
	// Options are the remaining words of the short syntax (z, Z, nocopy, a propagation mode).
	Options []string `json:"options,omitempty"`
}

// EnvFile is a file of KEY=VALUE lines.
type EnvFile struct {
	Path     string `json:"path"`
	Required bool   `json:"required"` // default true
}

// Secret says where a secret value is to be had: exactly one of File and Command.
type Secret struct {
	File    string   `json:"file,omitempty"`
	Command []string `json:"command,omitempty"`
	As      SecretAs `json:"as"`
}

// SecretAs is how the container sees a secret.
type SecretAs string

const (
	AsEnv  SecretAs = "env"
	AsFile SecretAs = "file" // /run/secrets/NAME
)

// Ulimit is a resource limit of the process.
type Ulimit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// Port is a published port.
type Port struct {
	HostIP    string `json:"host_ip,omitempty"`
	Published uint16 `json:"published"`
	Target    uint16 `json:"target"`
	Protocol  string `json:"protocol"` // tcp or udp
}

// Logging is the engine's log driver; the default is local, 10 MB × 3.
type Logging struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
}

// Limits become cgroup limits. Zero: no limit.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes
	CPUs   float64 `json:"cpus,omitempty"`   // processors, 0.5 is half of one
	PIDs   int64   `json:"pids,omitempty"`
}

// Policy is the part of a definition that is applied in place.
type Policy struct {
	Kind       Kind       `json:"kind"`
	PullPolicy PullPolicy `json:"pull_policy"`
	Replicas   int        `json:"replicas"`
	HTTP       *HTTP      `json:"http,omitempty"` // nil: no route
	Health     Health     `json:"health"`
	Upgrade    Upgrade    `json:"upgrade"`
	DependsOn  []string   `json:"depends_on,omitempty"`
	Cron       *Cron      `json:"cron,omitempty"`
	Recycle    *Recycle   `json:"recycle,omitempty"`
	Retain     int        `json:"retain"` // committed releases kept for rollback; default 3
	// Notify are the names of the targets that are told of changes; nil: all,
	// empty: none.
	Notify []string `json:"notify,omitzero"`
}

// PullPolicy says when an image is fetched.
type PullPolicy string

const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// HTTP is how the proxy reaches the service.
type HTTP struct {
	Hosts  []string `json:"hosts,omitempty"` // lower case; empty: every name no other service claims
	Path   string   `json:"path"`            // prefix, begins with /; default /
	Listen Listen   `json:"listen"`          // default: port 80, with tls 443, on all addresses
	TLS    *TLS     `json:"tls,omitempty"`
	GRPC   bool     `json:"grpc,omitempty"`
}

// Listen is an address at which the proxy takes connections.
type Listen struct {
	Addr netip.Addr `json:"addr,omitzero"` // zero: all addresses
	Port uint16     `json:"port"`
}

// TLS is the certificate that the proxy shows.
type TLS struct {
	Certificate string `json:"certificate"` // absolute path
	Key         string `json:"key"`         // absolute path
	// Redirect also listens at port 80 and sends clients to the TLS address.
	Redirect bool `json:"redirect,omitempty"`
}

// HealthKind is how an instance is asked whether it is well.
type HealthKind string

const (
	HealthHTTP    HealthKind = "http"
	HealthTCP     HealthKind = "tcp"
	HealthCommand HealthKind = "command"
	// HealthUptime: it has run for Health.Uptime. The worker's default.
	HealthUptime HealthKind = "uptime"
)

// Health is the health check of every instance.
type Health struct {
	Kind    HealthKind        `json:"kind"`
	Path    string            `json:"path,omitempty"`    // http
	Headers map[string]string `json:"headers,omitempty"` // http; as written, over the defaults
	// StatusMin and StatusMax bound the answers that count as healthy (http).
	StatusMin int      `json:"status_min,omitempty"`
	StatusMax int      `json:"status_max,omitempty"`
	Port      uint16   `json:"port,omitempty"`    // tcp; http: 0 means the instance's own port
	Command   []string `json:"command,omitempty"` // run inside the instance

	Uptime         Duration `json:"uptime,omitempty"`
	Interval       Duration `json:"interval"`        // once healthy; default 5 s
	Timeout        Duration `json:"timeout"`         // of one probe; default 2 s
	UnhealthyAfter int      `json:"unhealthy_after"` // consecutive failures; default 3
	StartTimeout   Duration `json:"start_timeout"`   // from the engine's StartedAt; default 60 s
}

// Order is what comes first when instances are replaced.
type Order string

const (
	StartFirst Order = "start-first"
	StopFirst  Order = "stop-first"
)

// Upgrade is how one release takes over from another.
type Upgrade struct {
	Order        Order    `json:"order"`
	DrainTimeout Duration `json:"drain_timeout"` // default 30 s
	// Before is a command of the new release, run once before any instance of it.
	Before []string `json:"before,omitempty"`
}

// Recycle has instances replaced by fresh ones, for what gets worse with age.
type Recycle struct {
	Every  Duration `json:"every"`
	Jitter Duration `json:"jitter,omitempty"` // each instance lives so much longer at most, by chance
}

// Cron is what generates the service's crontab.
type Cron struct {
	Command []string `json:"command,omitempty"` // default generate-cron
	OnLock  string   `json:"on_lock,omitempty"` // allow, wait, skip, replace; empty: allow
	Jitter  Duration `json:"jitter,omitempty"`
}

// Duration is a time.Duration that is written as Go and Compose write it (1m30s).
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText makes JSON show 1m30s.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
