package spec

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// The forms of ports, addresses and host names of the container.

var extraHostGrammar = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)

// portNumber is a port, also in quotes, as Compose has it.
func portNumber() form[uint16] {
	s := schema{"anyOf": []schema{{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^[1-9][0-9]{0,4}$"}}}
	return form[uint16]{schema: s, read: func(v value) (uint16, bool) {
		s, _ := v.scalar()
		n, ok := parseInteger(s, 1, 65535)
		if !ok {
			v.mustBe("a port from 1 to 65535", rangeHint(s))
		}
		return uint16(n), ok
	}}
}

func rangeHint(s string) string {
	if strings.Contains(s, "-") {
		return "ranges are not supported: write each port"
	}
	return ""
}

// portText is the short syntax [HOST_IP:]PUBLISHED:TARGET[/PROTOCOL].
func portText() form[Port] {
	return checked(scalar(), func(v value, s string) (Port, bool) {
		p := Port{Protocol: "tcp"}
		rest, protocol, found := strings.Cut(s, "/")
		if found {
			p.Protocol = protocol
		}
		var published, target int64
		ok := p.Protocol == "tcp" || p.Protocol == "udp"
		if i := strings.LastIndexByte(rest, ':'); i >= 0 {
			var good bool
			target, good = parseInteger(rest[i+1:], 1, 65535)
			ok, rest = ok && good, rest[:i]
		} else {
			v.mustBe("[HOST_IP:]PUBLISHED:TARGET[/PROTOCOL]", "the host's port is needed: write PUBLISHED:"+rest)
			return p, false
		}
		if i := strings.LastIndexByte(rest, ':'); i >= 0 {
			host := strings.TrimSuffix(strings.TrimPrefix(rest[:i], "["), "]")
			a, err := netip.ParseAddr(host)
			ok = ok && err == nil && a.Zone() == ""
			p.HostIP, rest = a.String(), rest[i+1:]
		}
		published, good := parseInteger(rest, 1, 65535)
		if !ok || !good {
			v.mustBe("[HOST_IP:]PUBLISHED:TARGET[/PROTOCOL]", rangeHint(s))
			return p, false
		}
		p.Published, p.Target = uint16(published), uint16(target)
		return p, true
	})
}

// address is an IP address.
func address() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			v.mustBe("an IP address", "")
			return "", false
		}
		return a.String(), true
	})
}

// extraHosts is a mapping of host to address, or a list of HOST:ADDRESS or
// HOST=ADDRESS.
func extraHosts() form[[]string] {
	line := func(v value, host, addr string) (string, bool) {
		addr = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
		a, err := netip.ParseAddr(addr)
		if !extraHostGrammar.MatchString(host) || (err != nil || a.Zone() != "") && addr != "host-gateway" {
			v.fail("such as db.internal:10.0.0.5", "%s is not HOST:ADDRESS", quote(host+":"+addr))
			return "", false
		}
		return host + ":" + addr, true
	}
	many := listOf(checked(text(), func(v value, s string) (string, bool) {
		i := strings.IndexAny(s, "=:")
		if i < 0 {
			return line(v, s, "")
		}
		return line(v, s[:i], s[i+1:])
	}))
	m := mapOf(func(value, string) bool { return true }, text())
	return form[[]string]{schema: schema{"anyOf": []schema{many.schema, m.schema}}, read: func(v value) ([]string, bool) {
		if !v.mapping() {
			return many.read(v)
		}
		hosts, ok := m.read(v)
		var lines []string
		for host, addr := range hosts {
			l, good := line(v, host, addr)
			lines, ok = append(lines, l), ok && good
		}
		slices.Sort(lines)
		return lines, ok
	}}
}
