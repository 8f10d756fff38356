package spec

import (
	"regexp"
	"time"
)

// The tables below are every key of a service's file. Where Compose has a key
// for a thing, its name and forms are used.

const (
	most    = 1 << 62
	maxTime = 24 * time.Hour
	maxAge  = 365 * 24 * time.Hour
)

func serviceKeys() keys[Service] {
	ks := keys[Service]{
		field("kind", "What the service is for. Default: web where it has http, else worker.",
			oneOf(Web, Worker, Job), func(s *Service) *Kind { return &s.Policy.Kind }),
		field("pull_policy", "When the image is fetched. Default: missing.",
			oneOf(PullMissing, PullAlways, PullNever), func(s *Service) *PullPolicy { return &s.Policy.PullPolicy }),
		field("replicas", "Instances to run. Default: 1.",
			integer[int](1, 1000), func(s *Service) *int { return &s.Policy.Replicas }),
		field("retain", "Committed releases that are kept for a rollback. Default: 3.",
			integer[int](1, 1000), func(s *Service) *int { return &s.Policy.Retain }),
		field("depends_on", "Services that this one needs.",
			dependsOn(), func(s *Service) *[]string { return &s.Policy.DependsOn }),
		field("notify", "Which of conductor.yml's notify targets are told of the service; [] is none. Default: all.",
			notifyNames(), func(s *Service) *[]string { return &s.Policy.Notify }),
		section("http", "How the proxy reaches the service.",
			httpKeys(), func(s *Service) *Service { s.Policy.HTTP = &HTTP{Path: "/"}; return s }, "port"),
		section("health", "The health check of every instance.",
			healthKeys(), func(s *Service) *Health { return &s.Policy.Health }),
		section("upgrade", "How one release takes over from another.",
			upgradeKeys(), func(s *Service) *Upgrade { return &s.Policy.Upgrade }),
		section("recycle", "Has the supervisor replace instances by fresh ones when they are so old.",
			recycleKeys(), func(s *Service) *Recycle {
				s.Policy.Recycle = &Recycle{}
				return s.Policy.Recycle
			}),
		section("cron", "What generates the service's crontab.",
			cronKeys(), func(s *Service) *Cron {
				s.Policy.Cron = &Cron{Command: []string{"generate-cron"}}
				return s.Policy.Cron
			}),
	}
	for _, k := range containerKeys() {
		ks = append(ks, key[Service]{name: k.name, schema: k.schema, read: func(v value, s *Service) { k.read(v, &s.Container) }})
	}
	return ks
}

// containerKeys are the keys whose change replaces instances; http.port is
// the one more of them.
func containerKeys() keys[Container] {
	return keys[Container]{
		field("image", "The image: a name to which the revision is added as tag, or a template with {revision} in its tag or as its digest.",
			imageTemplate(), func(c *Container) *string { return &c.Image }),
		field("command", "Replaces the image's command; a string is split into words, and no shell sees it.",
			command(), func(c *Container) *[]string { return &c.Command }),
		field("entrypoint", "Replaces the image's entrypoint; an empty list removes it.",
			entrypoint(), func(c *Container) *[]string { return &c.Entrypoint }),
		field("working_dir", "Where the command runs: an absolute path in the container.",
			absolute(), func(c *Container) *string { return &c.WorkingDir }),
		field("user", "Who runs the command: USER or USER:GROUP, names or numbers.",
			matching(scalar(), userGrammar, "USER or USER:GROUP", ""), func(c *Container) *string { return &c.User }),
		field("init", "Runs a small init that forwards signals and reaps processes. Default: true.",
			boolean(), func(c *Container) *bool { return &c.Init }),
		field("read_only", "Makes the container's root file system read-only.",
			boolean(), func(c *Container) *bool { return &c.ReadOnly }),
		field("tmpfs", "Paths in the container that are kept in memory: PATH[:OPTIONS].",
			oneOrMore(tmpfs()), func(c *Container) *[]string { return &c.Tmpfs }),
		field("volumes", "Mounts: [SOURCE:]TARGET[:OPTIONS], or the long syntax. A source is an absolute path of the host or a volume's name.",
			listOf(either(volumeText(), checked(record(volumeKeys(), longVolume{}, "type", "target"), volumeLong))), func(c *Container) *[]Volume { return &c.Volumes }),
		field("environment", "The environment, values as written; nothing is interpolated.",
			environment(), func(c *Container) *map[string]string { return &c.Environment }),
		field("env_file", "Files of KEY=VALUE lines, absolute paths; later ones win, environment wins over all.",
			oneOrList(envFilePath(), listOf(either(envFilePath(), record(envFileKeys(), EnvFile{Required: true}, "path")))), func(c *Container) *[]EnvFile { return &c.EnvFile }),
		field("secrets", "Secret values by reference: a file or a command that prints it.",
			hidden(mapOf(isEnvName, checked(record(secretKeys(), Secret{As: AsEnv}), oneSource))), func(c *Container) *map[string]Secret { return &c.Secrets }),
		field("labels", "Labels of the container; those that begin with conductor. are Conductor's own.",
			labels(), func(c *Container) *map[string]string { return &c.Labels }),
		field("cap_add", "Capabilities that are added.",
			listOf(capability()), func(c *Container) *[]string { return &c.CapAdd }),
		field("cap_drop", "Capabilities that are taken away.",
			listOf(capability()), func(c *Container) *[]string { return &c.CapDrop }),
		field("security_opt", "Security options, such as no-new-privileges.",
			listOf(securityOpt()), func(c *Container) *[]string { return &c.SecurityOpt }),
		field("ulimits", "Limits of the process: a number, or soft and hard; -1 is unlimited.",
			mapOf(isUlimit, ulimit()), func(c *Container) *map[string]Ulimit { return &c.Ulimits }),
		field("ports", "Ports published on the host: [HOST_IP:]PUBLISHED:TARGET[/PROTOCOL]. Needs one replica and upgrade.order stop-first.",
			listOf(either(portText(), record(portKeys(), Port{Protocol: "tcp"}, "target", "published"))), func(c *Container) *[]Port { return &c.Ports }),
		field("shm_size", "Size of /dev/shm: 64m, 1g.",
			size(1), func(c *Container) *int64 { return &c.ShmSize }),
		field("extra_hosts", "Lines for /etc/hosts: HOST:ADDRESS.",
			extraHosts(), func(c *Container) *[]string { return &c.ExtraHosts }),
		field("dns", "Addresses of name servers.",
			oneOrMore(address()), func(c *Container) *[]string { return &c.DNS }),
		field("hostname", "The container's host name.",
			matching(scalar(), hostnameGrammar, "a host name of at most 63 characters", ""), func(c *Container) *string { return &c.Hostname }),
		section("logging", "The engine's log driver. Default: local, 10 MB × 3.",
			loggingKeys(), func(c *Container) *Logging { return &c.Logging }),
		field("stop_signal", "The signal that asks the process to end: a name or a number. Default: the image's.",
			stopSignal(), func(c *Container) *string { return &c.StopSignal }),
		field("stop_grace_period", "Time from the stop signal to the kill. Default: 10s.",
			span(0, maxTime), func(c *Container) *Duration { return &c.StopGracePeriod }),
		section("limits", "Limits of an instance.",
			limitKeys(), func(c *Container) *Limits { return &c.Limits }),
	}
}

func httpKeys() keys[Service] {
	return keys[Service]{
		field("port", "Where an instance listens, in the container.",
			integer[uint16](1, 65535), func(s *Service) *uint16 { return &s.Container.HTTPPort }),
		field("hosts", "Host names, *.example.com for all below. Absent: every name that no other service claims.",
			hostNames(), func(s *Service) *[]string { return &s.Policy.HTTP.Hosts }),
		field("path", "Prefix of the paths that are the service's. Default: /.",
			routePath(), func(s *Service) *string { return &s.Policy.HTTP.Path }),
		field("listen", "Where the proxy listens: port or address:port. Default: 80, with tls 443.",
			listen(), func(s *Service) *Listen { return &s.Policy.HTTP.Listen }),
		section("tls", "The certificate that the proxy shows.",
			tlsKeys(), func(s *Service) *TLS { s.Policy.HTTP.TLS = &TLS{}; return s.Policy.HTTP.TLS }, "certificate", "key"),
		field("grpc", "Instances speak gRPC.",
			boolean(), func(s *Service) *bool { return &s.Policy.HTTP.GRPC }),
	}
}

func tlsKeys() keys[TLS] {
	return keys[TLS]{
		field("certificate", "File of the certificate and its chain, an absolute path.",
			proxyPath(), func(t *TLS) *string { return &t.Certificate }),
		field("key", "File of the private key, an absolute path.",
			proxyPath(), func(t *TLS) *string { return &t.Key }),
		field("redirect", "Also listens at port 80 and sends clients to the TLS address.",
			boolean(), func(t *TLS) *bool { return &t.Redirect }),
	}
}

func healthKeys() keys[Health] {
	return keys[Health]{
		field("path", "What is asked for with GET at http.port. Default of a web service: /.",
			probePath(), func(h *Health) *string { return &h.Path }),
		field("tcp", "A port that takes connections.",
			integer[uint16](1, 65535), func(h *Health) *uint16 { return &h.Port }),
		field("command", "A command in the instance that exits with 0.",
			command(), func(h *Health) *[]string { return &h.Command }),
		field("headers", "Headers of the request, over the defaults.",
			hidden(mapOf(isHeader, headerValue())), func(h *Health) *map[string]string { return &h.Headers }),
		setting("status", "Answers that count as healthy: 204, or 200-299. Default: 200-299 with path, else 200-399.",
			statusRange(), func(h *Health, r [2]int) { h.StatusMin, h.StatusMax = r[0], r[1] }),
		field("interval", "Time between probes once healthy. Default: 5s.",
			span(100*time.Millisecond, maxTime), func(h *Health) *Duration { return &h.Interval }),
		field("timeout", "Time that one probe may take. Default: 2s.",
			span(10*time.Millisecond, time.Hour), func(h *Health) *Duration { return &h.Timeout }),
		field("unhealthy_after", "Consecutive failures until an instance counts as unhealthy. Default: 3.",
			integer[int](1, 1000), func(h *Health) *int { return &h.UnhealthyAfter }),
		field("start_timeout", "Time from the start until an instance must be healthy. Default: 60s.",
			span(time.Second, maxTime), func(h *Health) *Duration { return &h.StartTimeout }),
	}
}

func upgradeKeys() keys[Upgrade] {
	return keys[Upgrade]{
		field("order", "What comes first when instances are replaced. Default: start-first.",
			oneOf(StartFirst, StopFirst), func(u *Upgrade) *Order { return &u.Order }),
		field("drain_timeout", "Time that requests in flight may take before an instance is stopped. Default: 30s.",
			span(0, maxTime), func(u *Upgrade) *Duration { return &u.DrainTimeout }),
		field("before", "A command of the new release, run once before any instance of it.",
			command(), func(u *Upgrade) *[]string { return &u.Before }),
	}
}

func recycleKeys() keys[Recycle] {
	return keys[Recycle]{
		field("every", "The age at which an instance is replaced.",
			span(10*time.Second, maxAge), func(r *Recycle) *Duration { return &r.Every }),
		field("jitter", "Each instance lives up to this much longer, so that they are not all replaced at once. Default: 0s.",
			span(0, maxAge), func(r *Recycle) *Duration { return &r.Jitter }),
	}
}

func cronKeys() keys[Cron] {
	return keys[Cron]{
		field("command", "The command that prints the crontab. Default: generate-cron.",
			command(), func(c *Cron) *[]string { return &c.Command }),
		field("on_lock", "What a job does while the one before still runs: allow, beside it; wait; skip; replace, end that one. Default: allow.",
			oneOf("allow", "wait", "skip", "replace"), func(c *Cron) *string { return &c.OnLock }),
		field("jitter", "Each job waits for a random part of this time. Default: 0s.",
			span(0, maxTime), func(c *Cron) *Duration { return &c.Jitter }),
	}
}

func limitKeys() keys[Limits] {
	return keys[Limits]{
		// The engine refuses less than 6 MB.
		field("memory", "Memory, swap not counted: 512m, 1g.",
			size(leastMemory), func(l *Limits) *int64 { return &l.Memory }),
		field("cpus", "Processors: 0.5 is half of one.",
			processors(), func(l *Limits) *float64 { return &l.CPUs }),
		field("pids", "Processes and threads.",
			integer[int64](1, most), func(l *Limits) *int64 { return &l.PIDs }),
	}
}

func loggingKeys() keys[Logging] {
	return keys[Logging]{
		field("driver", "The log driver. Default: local.",
			matching(text(), driverGrammar, "the name of a log driver", ""), func(l *Logging) *string { return &l.Driver }),
		field("options", "Options of the driver.",
			mapOf(isOption, scalar()), func(l *Logging) *map[string]string { return &l.Options }),
	}
}

func secretKeys() keys[Secret] {
	return keys[Secret]{
		field("file", "A file of the host that holds the value, an absolute path.",
			absolute(), func(s *Secret) *string { return &s.File }),
		field("command", "A command of the host that prints the value.",
			command(), func(s *Secret) *[]string { return &s.Command }),
		field("as", "How the container sees it: a variable, or the file /run/secrets/NAME. Default: env.",
			oneOf(AsEnv, AsFile), func(s *Secret) *SecretAs { return &s.As }),
	}
}

func envFileKeys() keys[EnvFile] {
	return keys[EnvFile]{
		field("path", "The file, an absolute path.",
			absolute(), func(e *EnvFile) *string { return &e.Path }),
		field("required", "Whether a missing file is an error. Default: true.",
			boolean(), func(e *EnvFile) *bool { return &e.Required }),
	}
}

func portKeys() keys[Port] {
	return keys[Port]{
		field("target", "The port in the container.",
			portNumber(), func(p *Port) *uint16 { return &p.Target }),
		field("published", "The port on the host.",
			portNumber(), func(p *Port) *uint16 { return &p.Published }),
		field("host_ip", "The host's address. Default: all.",
			address(), func(p *Port) *string { return &p.HostIP }),
		field("protocol", "tcp or udp. Default: tcp.",
			oneOf("tcp", "udp"), func(p *Port) *string { return &p.Protocol }),
	}
}

// foreignKeys are what people bring from Compose files, and what to do instead.
var foreignKeys = map[string]string{
	"build":          "images are built elsewhere; name one with image",
	"container_name": "Conductor names containers, so that two releases can run at once",
	"cpus":           "write limits: {cpus: …}",
	"deploy":         "write replicas, limits and upgrade at the top level",
	"expose":         "write http: {port: …}",
	"healthcheck":    "write health: {path: …}, {tcp: …} or {command: …}",
	"links":          "write extra_hosts, or reach the service through the proxy",
	"mem_limit":      "write limits: {memory: …}",
	"networks":       "instances are on Conductor's own network",
	"network_mode":   "instances are on Conductor's own network",
	"pids_limit":     "write limits: {pids: …}",
	"privileged":     "not supported; write cap_add for what is needed",
	"restart":        "Conductor starts ended instances again by itself",
	"scale":          "write replicas",
	"services":       "write one file a service, its keys at the top level; the file's name is its id",
	"version":        "not needed; remove it",
}

var (
	userGrammar     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?$`)
	hostnameGrammar = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)
	driverGrammar   = regexp.MustCompile(`^[a-z0-9][a-z0-9._/:-]*$`)
)
