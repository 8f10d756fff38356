package spec

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The forms of values that reach the proxy or a probe. They are strict: what
// is not known to be harmless in a configuration file is refused.

var (
	hostLabel   = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
	pathGrammar = regexp.MustCompile(`^/[A-Za-z0-9._~@:+,=!/-]*$`)
	// A probe's path may have a query.
	probeGrammar  = regexp.MustCompile(`^/([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*$`)
	fileGrammar   = regexp.MustCompile(`^/[A-Za-z0-9/._@+=,:*~-]*$`)
	headerGrammar = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	statusGrammar = regexp.MustCompile(`^([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?$`)
)

func hostNames() form[[]string] {
	hosts := listOf(checked(text(), func(v value, s string) (string, bool) {
		host := strings.ToLower(s)
		if hint, ok := hostName(host); !ok {
			v.mustBe("a host name", hint)
			return "", false
		}
		return host, true
	}))
	hosts.schema["minItems"] = 1
	return checked(hosts, func(v value, hosts []string) ([]string, bool) {
		if len(hosts) == 0 {
			v.fail("remove the key to take every name that no other service claims", "has no host names")
			return nil, false
		}
		for i, h := range hosts {
			if slices.Contains(hosts[:i], h) {
				v.fail("", "%s is written twice", quote(h))
				return nil, false
			}
		}
		return hosts, true
	})
}

// hostName reports whether s, in lower case, is a host name or *. and one.
func hostName(s string) (hint string, ok bool) {
	labels := strings.Split(strings.TrimPrefix(s, "*."), ".")
	bad := func(label string) bool { return !hostLabel.MatchString(label) }
	if len(s) <= 253 && !slices.ContainsFunc(labels, bad) {
		return "", true
	}
	switch {
	case strings.Contains(s, "://"):
		return "write the name alone; http.tls and http.path say the rest", false
	case strings.Contains(s, ":"):
		return "write the name alone; http.listen has the port", false
	case strings.Contains(s, "*"):
		return "a * can only be the whole first part: *.example.com", false
	case strings.ContainsFunc(s, func(r rune) bool { return r > 127 }):
		return "write it in its ASCII form, xn--…", false
	}
	return "letters, digits, - and _, in parts joined by dots", false
}

// routePath is a prefix of request paths, as the proxy compares it: decoded
// and without . and .. in it.
func routePath() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		hint := "letters, digits and . _ ~ @ : + , = ! / -"
		if strings.ContainsAny(s, "?#") {
			hint = "a route has no query"
		}
		if !pathGrammar.MatchString(s) {
			v.mustBe("a plain path from /", hint)
			return "", false
		}
		parts := strings.Split(s, "/")
		if strings.Contains(s, "//") || slices.Contains(parts, ".") || slices.Contains(parts, "..") {
			v.mustBe("a path without //, . and ..", "the proxy compares paths after it has taken these away")
			return "", false
		}
		return s, true
	})
}

// proxyPath is the name of a file that the proxy reads.
func proxyPath() form[string] {
	return checked(absolute(), func(v value, s string) (string, bool) {
		if !fileGrammar.MatchString(s) {
			v.mustBe("a path that needs no quotes in the proxy's configuration", "letters, digits and / . _ @ + = , : * ~ -")
			return "", false
		}
		return s, true
	})
}

func probePath() form[string] {
	return matching(text(), probeGrammar, "a path from /, as in a URL", "write other characters as %XX")
}

func isHeader(k value, s string) bool {
	if !headerGrammar.MatchString(s) {
		k.fail("", "%s is not the name of a header", quote(s))
		return false
	}
	return true
}

func headerValue() form[string] {
	return checked(scalar(), func(v value, s string) (string, bool) {
		if strings.TrimSpace(s) != s {
			v.mustBe("text without blanks around it", "")
			return "", false
		}
		return s, true
	})
}

// listen is a port, or an address and a port.
func listen() form[Listen] {
	s := schema{"anyOf": []schema{{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string"}}}
	return form[Listen]{schema: s, read: func(v value) (Listen, bool) {
		s, _ := v.scalar()
		if n, ok := parseInteger(s, 1, 65535); ok {
			return Listen{Port: uint16(n)}, true
		}
		ap, err := netip.ParseAddrPort(s)
		a := ap.Addr().Unmap()
		switch {
		case err != nil || ap.Port() == 0 || a.Zone() != "":
			v.mustBe("a port from 1 to 65535 or ADDRESS:PORT", "such as 80, 127.0.0.1:8080 or [::1]:8080")
			return Listen{}, false
		case a.IsUnspecified():
			v.mustBe("a port from 1 to 65535 or ADDRESS:PORT", "write the port alone: it listens on all addresses")
			return Listen{}, false
		}
		return Listen{Addr: a, Port: ap.Port()}, true
	}}
}

func statusRange() form[[2]int] {
	s := schema{"anyOf": []schema{{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string", "pattern": statusGrammar.String()}}}
	return form[[2]int]{schema: s, read: func(v value) (r [2]int, ok bool) {
		s, _ := v.scalar()
		m := statusGrammar.FindStringSubmatch(s)
		if m == nil {
			v.mustBe("a status from 100 to 599, or two as 200-299", "")
			return r, false
		}
		r[0], _ = strconv.Atoi(m[1])
		if r[1] = r[0]; m[2] != "" {
			r[1], _ = strconv.Atoi(m[2])
		}
		if r[0] > r[1] {
			v.mustBe("a range from low to high", "")
			return r, false
		}
		return r, true
	}}
}

// String is the form in which http.listen is written: 80, 127.0.0.1:80.
func (l Listen) String() string {
	if !l.Addr.IsValid() {
		return strconv.Itoa(int(l.Port))
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

// URLs are the addresses at which clients reach the service, one for each
// host name; with none of these, * or the listen address stands for it.
func (h HTTP) URLs() []string {
	hosts := h.Hosts
	if len(hosts) == 0 {
		hosts = []string{"*"}
		if a := h.Listen.Addr; a.Is4() {
			hosts[0] = a.String()
		} else if a.IsValid() {
			hosts[0] = "[" + a.String() + "]"
		}
	}
	scheme, usual := "http://", uint16(80)
	if h.TLS != nil {
		scheme, usual = "https://", 443
	}
	port := ""
	if h.Listen.Port != usual {
		port = ":" + strconv.Itoa(int(h.Listen.Port))
	}
	urls := make([]string, len(hosts))
	for i, host := range hosts {
		urls[i] = scheme + host + port + h.Path
	}
	return urls
}
