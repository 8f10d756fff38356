package nginx

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// Nothing from a definition gets into nginx's file but through the patterns
// and through quote below. spec has checked it all before; a mistake there, or
// a goal file changed by hand, must not become configuration here.
var (
	serviceID = regexp.MustCompile(`^[a-z0-9]+([_-][a-z0-9]+)*$`)
	container = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)
	hostName  = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
	urlPath   = regexp.MustCompile(`^/[A-Za-z0-9._~!&()*+,=:@/-]*$`)
)

// quote returns the word as one argument of an nginx directive. It refuses
// what has a meaning that no quoting takes away: variables and control
// characters.
func quote(word string) (string, error) {
	for _, r := range word {
		if r < ' ' || r == 0x7f || r == '$' || r == '\uFFFD' {
			return "", fmt.Errorf("quote %q for nginx: it has a character that nginx would not take literally", word)
		}
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`, nil
}

func invalid(service, hint, format string, args ...any) error {
	args = append([]any{proxy.ErrRefused, service}, args...)
	return fault.New(fault.ErrDefinition, hint, "%w: service %q: "+format, args...)
}

// validate refuses what could not be rendered without changing its meaning.
func validate(r proxy.Route) error {
	h := r.HTTP
	if len(r.Service) > 63 || !serviceID.MatchString(r.Service) {
		return invalid(r.Service, "", "the id is not valid")
	}
	for _, host := range h.Hosts {
		if len(host) > 253 || !hostName.MatchString(host) {
			return invalid(r.Service, "give a DNS name in lower case", "http.hosts: %q is not a host name", host)
		}
	}
	if !urlPath.MatchString(h.Path) || path.Clean(h.Path) != h.Path && path.Clean(h.Path)+"/" != h.Path {
		return invalid(r.Service, "begin it with /; letters, digits and ._~!&()*+,=:@- may follow, but no //, . or ..", "http.path: %q is not a path", h.Path)
	}
	if h.Listen.Port == 0 {
		return invalid(r.Service, "", "http.listen: port 0")
	}
	if h.Listen.Addr.Zone() != "" {
		return invalid(r.Service, "", "http.listen: %s has a zone", h.Listen.Addr)
	}
	if h.TLS != nil {
		if err := validateFile(r.Service, "certificate", h.TLS.Certificate); err != nil {
			return err
		}
		if err := validateFile(r.Service, "key", h.TLS.Key); err != nil {
			return err
		}
	}
	for _, t := range r.Targets {
		if !container.MatchString(t.Instance) {
			return invalid(r.Service, "", "%q is not the name of an instance", t.Instance)
		}
		if !t.Addr.IsValid() || t.Addr.Port() == 0 || t.Addr.Addr().Zone() != "" || t.Addr.Addr().IsUnspecified() || t.Addr.Addr().Is4In6() {
			return invalid(r.Service, "", "instance %s: %s is not an address", t.Instance, t.Addr)
		}
		if t.Weight < 1 || t.Weight > 1_000_000 {
			return invalid(r.Service, "", "instance %s: weight %d is not in 1–1000000", t.Instance, t.Weight)
		}
	}
	return nil
}

func validateFile(service, key, file string) error {
	if !path.IsAbs(file) {
		return invalid(service, "give an absolute path", "http.tls.%s: %q is not absolute", key, file)
	}
	if _, err := quote(file); err != nil {
		return invalid(service, "rename the file", "http.tls.%s: %w", key, err)
	}
	return nil
}

// encode writes targets as the Lua side keeps them: NAME@ADDR:PORT*WEIGHT,
// separated by spaces. validate has made sure that no part has any of these.
func encode(targets []proxy.Target) string {
	words := make([]string, len(targets))
	for i, t := range targets {
		words[i] = fmt.Sprintf("%s@%s*%d", t.Instance, t.Addr, t.Weight)
	}
	return strings.Join(words, " ")
}

func decode(value string) ([]proxy.Target, error) {
	var targets []proxy.Target
	for word := range strings.FieldsSeq(value) {
		var t proxy.Target
		name, rest, ok := strings.Cut(word, "@")
		addr, weight, ok2 := strings.Cut(rest, "*")
		if !ok || !ok2 {
			return nil, fmt.Errorf("parse target %q", word)
		}
		var err error
		if t.Addr, err = netip.ParseAddrPort(addr); err != nil {
			return nil, fmt.Errorf("parse target %q: %w", word, err)
		}
		if _, err = fmt.Sscanf(weight, "%d", &t.Weight); err != nil {
			return nil, fmt.Errorf("parse target %q: %w", word, err)
		}
		t.Instance = name
		targets = append(targets, t)
	}
	return targets, nil
}

// listenAt writes an address of http.listen as nginx has it; all addresses
// are two of them where the host speaks IPv6.
func listenAt(l spec.Listen, ipv6 bool) []string {
	if l.Addr == netip.IPv4Unspecified() {
		return []string{fmt.Sprint(l.Port)}
	}
	if l.Addr.IsValid() {
		return []string{netip.AddrPortFrom(l.Addr.Unmap(), l.Port).String()}
	}
	if ipv6 {
		return []string{fmt.Sprint(l.Port), fmt.Sprintf("[::]:%d", l.Port)}
	}
	return []string{fmt.Sprint(l.Port)}
}
