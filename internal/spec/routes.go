package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// claim is one place at the proxy that a service wants for itself.
type claim struct {
	listen Listen
	host   string // empty: every name that no other service claims
	path   string // without a slash at its end
	tls    *TLS   // nil: plain
	grpc   bool
}

// claims are all places that the routes need.
func (h HTTP) claims() []claim {
	hosts := h.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	var cs []claim
	for _, host := range hosts {
		c := claim{listen: h.Listen, host: host, path: strings.TrimRight(h.Path, "/"), tls: h.TLS, grpc: h.GRPC}
		cs = append(cs, c)
		if h.TLS != nil && h.TLS.Redirect {
			c.listen.Port, c.tls, c.grpc = 80, nil, false
			cs = append(cs, c)
		}
	}
	return cs
}

// against says why the proxy cannot serve both claims, and what to do; empty
// where it can.
func (c claim) against(o claim) (message, hint string) {
	if c.listen.Port != o.listen.Port {
		return "", ""
	}
	if c.listen != o.listen {
		if c.listen.Addr.IsValid() && o.listen.Addr.IsValid() {
			return "", "" // two addresses of the host
		}
		// The kernel gives all connections of that address to the specific
		// one's servers, so the other service would vanish there, silently.
		return fmt.Sprintf("listens at %s, which takes connections of", c.listen.words()),
			"let both listen at the port alone, or each at an address"
	}
	if (c.tls == nil) != (o.tls == nil) {
		return fmt.Sprintf("speaks %s at port %d, other than", c.protocol(), c.listen.Port), "a port has either TLS or not: let one listen at another port"
	}
	if c.tls == nil && c.grpc != o.grpc {
		// Without TLS nothing tells HTTP/2 from HTTP/1 before the first byte.
		return fmt.Sprintf("speaks %s at port %d, other than", c.protocol(), c.listen.Port), "without TLS a port has either gRPC or HTTP: let one listen at another port"
	}
	if c.host != o.host {
		return "", ""
	}
	if c.path == o.path {
		hint := "give one of them other http.hosts, http.path or http.listen"
		return fmt.Sprintf("claims %s, and so does", c), hint
	}
	if c.tls != nil && (c.tls.Certificate != o.tls.Certificate || c.tls.Key != o.tls.Key) {
		return fmt.Sprintf("has another certificate for %s than", cmp.Or(c.host, "all other host names")), "a host name has one certificate: name the same files in both"
	}
	return "", ""
}

func (c claim) protocol() string {
	switch {
	case c.tls != nil:
		return "TLS"
	case c.grpc:
		return "gRPC without TLS"
	}
	return "plain HTTP"
}

func (c claim) String() string {
	host := cmp.Or(c.host, "all other host names")
	return fmt.Sprintf("%s%s at %s", host, cmp.Or(c.path, "/"), c.listen.words())
}

func (l Listen) words() string {
	if !l.Addr.IsValid() {
		return fmt.Sprintf("port %d of all addresses", l.Port)
	}
	return l.String()
}

// Conflicts returns why the service's routes and published ports cannot be had
// beside those of the other valid services, or nil: Problems, which are
// fault.ErrDefinition, each naming both files.
func (s Set) Conflicts(id string) error { return s.conflicts(id).err() }

func (s Set) conflicts(id string) Problems {
	mine, ok := s.Services[id]
	if !ok {
		return nil
	}
	var ps Problems
	for _, other := range s.IDs() {
		if other == id {
			continue
		}
		theirs := s.Services[other]
		if h, o := mine.Policy.HTTP, theirs.Policy.HTTP; h != nil && o != nil {
			ps = append(ps, s.routeConflicts(mine, theirs)...)
		}
		for _, p := range mine.Container.Ports {
			if slices.ContainsFunc(theirs.Container.Ports, p.overlaps) {
				ps = append(ps, s.problem(id, "ports", "publish another port",
					fmt.Sprintf("publishes port %d/%s of the host, and so does %s", p.Published, p.Protocol, s.place(other, "ports"))))
			}
		}
		ps = append(ps, s.taken(mine, theirs)...)
	}
	return ps
}

// routeConflicts has each reason once, however many host names it concerns.
func (s Set) routeConflicts(mine, theirs Service) Problems {
	var ps Problems
	for _, c := range mine.Policy.HTTP.claims() {
		for _, o := range theirs.Policy.HTTP.claims() {
			if message, hint := c.against(o); message != "" {
				p := s.problem(mine.ID, "http", hint, message+" "+s.place(theirs.ID, "http"))
				if !slices.Contains(ps, p) {
					ps = append(ps, p)
				}
			}
		}
	}
	return ps
}

// taken finds a port that one service publishes and the proxy listens at for
// the other.
func (s Set) taken(mine, theirs Service) Problems {
	var ps Problems
	find := func(publisher, web Service, message func(port uint16) Problem) {
		if web.Policy.HTTP == nil {
			return
		}
		for _, c := range web.Policy.HTTP.claims() {
			at := Port{Published: c.listen.Port, Protocol: "tcp"}
			if c.listen.Addr.IsValid() {
				at.HostIP = c.listen.Addr.String()
			}
			if slices.ContainsFunc(publisher.Container.Ports, at.overlaps) {
				if p := message(at.Published); !slices.Contains(ps, p) {
					ps = append(ps, p)
				}
			}
		}
	}
	find(mine, theirs, func(port uint16) Problem {
		return s.problem(mine.ID, "ports", "publish another port",
			fmt.Sprintf("publishes port %d of the host, where the proxy listens for %s", port, s.place(theirs.ID, "http")))
	})
	find(theirs, mine, func(port uint16) Problem {
		return s.problem(mine.ID, "http", "listen at another port",
			fmt.Sprintf("listens at port %d, which is published by %s", port, s.place(theirs.ID, "ports")))
	})
	return ps
}

// place is file:line:column of a key of a service.
func (s Set) place(id, key string) string {
	p := s.problem(id, key, "", "")
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}
