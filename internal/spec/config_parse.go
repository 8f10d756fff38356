package spec

import (
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultConfig is what holds where there is no conductor.yml.
func DefaultConfig() Config {
	return Config{
		Namespace:   "conductor",
		ServicesDir: "/etc/conductor/services",
		StateDir:    "/var/lib/conductor",
		CronDir:     "/etc/cron.d",
		Proxy: ProxyConfig{
			Kind: "nginx", Switch: "auto", ConfigDir: "/etc/nginx/conf.d",
			Test: []string{"nginx", "-t"}, Reload: []string{"nginx", "-s", "reload"},
			Admin: netip.MustParseAddrPort("127.0.0.1:0"),
		},
	}
}

// ParseConfig reads conductor.yml. Paths in it are relative to file, which is
// made absolute by the working directory. All mistakes are returned together,
// as Problems.
func ParseConfig(file string, data []byte) (Config, error) {
	d := newDecoder(file)
	c := DefaultConfig()
	c.File, c.ServicesDir = file, "services"
	ks := configKeys()
	d.paths = ks.schema().paths("")
	// A file of comments alone is a good configuration: every key has a default.
	if root, ok := d.load(data); ok {
		ks.read(root, &c)
	} else if len(d.problems) == 1 && d.problems[0].Message == emptyFile {
		d.problems = nil
	}
	full, err := filepath.Abs(file)
	if err != nil {
		d.fail(position{}, "", "find the working directory: %s", err)
	}
	for _, p := range []*string{&c.ServicesDir, &c.StateDir, &c.Proxy.ConfigDir, &c.CronDir} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(full), *p)
		}
	}
	for _, t := range c.Notify {
		t.within(filepath.Dir(full))
	}
	// Both end up in the proxy's configuration, with the directory of the file.
	for key, p := range map[string]string{"state_dir": c.StateDir, "proxy.config_dir": c.Proxy.ConfigDir} {
		if !fileGrammar.MatchString(p) {
			d.failAt(key, "letters, digits and / . _ @ + = , : * ~ -", "%s needs quotes in the proxy's configuration", quote(p))
		}
	}
	return c, d.problems.err()
}

// configKeys are every key of conductor.yml.
func configKeys() keys[Config] {
	return keys[Config]{
		field("namespace", "Prefix of labels, networks and names: two installations share an engine without seeing each other. Default: conductor.",
			namespace(), func(c *Config) *string { return &c.Namespace }),
		field("services_dir", "Where the services' definitions are. Default: services, beside this file.",
			directory(), func(c *Config) *string { return &c.ServicesDir }),
		field("state_dir", "Where Conductor keeps what it must remember. Default: /var/lib/conductor.",
			directory(), func(c *Config) *string { return &c.StateDir }),
		field("cron_dir", "Where crontabs are installed for the host's cron daemon. Default: /etc/cron.d.",
			directory(), func(c *Config) *string { return &c.CronDir }),
		field("notify", "Who is told when a service goes bad or recovers, an upgrade or a run fails, or the engine is gone.",
			notifyTargets(), func(c *Config) *[]NotifyTarget { return &c.Notify }),
		section("engine", "The container engine.", keys[EngineConfig]{
			field("host", "Its socket, unix:///PATH. Default: $DOCKER_HOST, then the usual ones.",
				engineHost(), func(e *EngineConfig) *string { return &e.Host }),
			field("subnet", "Addresses of the instances' network, such as 172.30.0.0/16. Default: one that is free.",
				subnet(), func(e *EngineConfig) *netip.Prefix { return &e.Subnet }),
		}, func(c *Config) *EngineConfig { return &c.Engine }),
		section("proxy", "How the proxy is run on this host.", keys[ProxyConfig]{
			field("kind", "Which proxy it is. Default: nginx.",
				oneOf("nginx"), func(p *ProxyConfig) *string { return &p.Kind }),
			field("switch", "How instances change: dynamic, in the running proxy; reload; auto, dynamic where the proxy can. Default: auto.",
				oneOf("auto", "dynamic", "reload"), func(p *ProxyConfig) *string { return &p.Switch }),
			field("config_dir", "Where conductor.conf is written. Default: /etc/nginx/conf.d.",
				directory(), func(p *ProxyConfig) *string { return &p.ConfigDir }),
			field("test", "The command that tests the proxy's configuration. Default: nginx -t.",
				command(), func(p *ProxyConfig) *[]string { return &p.Test }),
			field("reload", "The command that makes the proxy read its configuration again. Default: nginx -s reload.",
				command(), func(p *ProxyConfig) *[]string { return &p.Reload }),
			field("trusted", "Balancers whose X-Forwarded-* headers are believed: addresses or prefixes.",
				listOf(prefix()), func(p *ProxyConfig) *[]netip.Prefix { return &p.Trusted }),
			field("admin", "Where the running proxy is talked to, on loopback; port 0: a free one. Default: 127.0.0.1:0.",
				admin(), func(p *ProxyConfig) *netip.AddrPort { return &p.Admin }),
		}, func(c *Config) *ProxyConfig { return &c.Proxy }),
	}
}

func namespace() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		if !ValidID(s) {
			v.mustBe("a name", idRule)
			return "", false
		}
		return s, true
	})
}

// directory is a path, absolute or relative to the file.
func directory() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		if strings.HasPrefix(s, "~") || strings.Contains(s, "$") {
			v.mustBe("a path", "nothing is interpolated: write it out")
			return "", false
		}
		return path.Clean(s), true
	})
}

func engineHost() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		rest, ok := strings.CutPrefix(s, "unix://")
		if !ok || !path.IsAbs(rest) || path.Clean(rest) == "/" {
			v.mustBe("unix:///PATH", "the engine must be on this host, such as unix:///var/run/docker.sock")
			return "", false
		}
		return s, true
	})
}

func subnet() form[netip.Prefix] {
	return checked(text(), func(v value, s string) (netip.Prefix, bool) {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 28 ||
			p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsUnspecified():
			v.mustBe("an IPv4 prefix from /8 to /28, such as 172.30.0.0/16", "")
			return p, false
		case p != p.Masked():
			v.mustBe("the first address of the network", "write "+p.Masked().String())
			return p, false
		}
		return p, true
	})
}

// prefix is a network, or one address.
func prefix() form[netip.Prefix] {
	return checked(text(), func(v value, s string) (netip.Prefix, bool) {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			a = a.Unmap()
			return netip.PrefixFrom(a, a.BitLen()), true
		}
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			v.mustBe("an address or a prefix, such as 10.0.0.0/8", "")
			return p, false
		case p != p.Masked():
			v.mustBe("the first address of the network", "write "+p.Masked().String()+" or "+p.Addr().String())
			return p, false
		}
		return p, true
	})
}

func admin() form[netip.AddrPort] {
	return checked(text(), func(v value, s string) (netip.AddrPort, bool) {
		a, err := netip.ParseAddrPort(s)
		switch {
		case err != nil:
			v.mustBe("ADDRESS:PORT", "such as 127.0.0.1:0")
			return a, false
		case !slices.Contains([]string{"127.0.0.1", "::1"}, a.Addr().String()):
			v.mustBe("on loopback", "whoever reaches it can move traffic: write 127.0.0.1:PORT")
			return a, false
		}
		return a, true
	})
}
