package spec

import "net/netip"

// Config is conductor.yml with its defaults filled in; all paths are absolute.
type Config struct {
	File        string // empty: none was found
	Namespace   string // [a-z0-9]+([_-][a-z0-9]+)*
	ServicesDir string
	StateDir    string
	Engine      EngineConfig
	Proxy       ProxyConfig
	CronDir     string // where the host's cron daemon reads crontabs
	Notify      []NotifyTarget
}

// EngineConfig is where the container engine is, and the network it shall have.
type EngineConfig struct {
	Host   string       // unix:///path; empty: $DOCKER_HOST, then the usual sockets
	Subnet netip.Prefix // of the instances' bridge; zero: one that is free
}

// ProxyConfig is how the proxy is run on this host.
type ProxyConfig struct {
	Kind      string // nginx
	Switch    string // auto, dynamic, reload
	ConfigDir string
	Test      []string // commands, never given to a shell
	Reload    []string
	Trusted   []netip.Prefix
	Admin     netip.AddrPort
}
