package nginx

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// server is one server block of the file.
type server struct {
	Listen    []string // arguments of listen, one directive each
	Names     string   // arguments of server_name
	Nobody    bool     // answers for host names that nobody claims
	TLS       *spec.TLS
	Locations []location
	Proxies   bool // a location of it does
	host      string
	order     int // the first block of a socket is nginx's default for it
}

// location is one location block.
type location struct {
	Match    string // argument of location
	Service  string
	GRPC     bool
	Redirect bool   // to the same address over TLS
	Port     string // of the redirect: ":8443", or empty for 443
}

// at is where a request comes in: a socket of nginx and a host name, which is
// empty where every host name is meant.
type at struct{ socket, host string }

type place struct {
	tls       *spec.TLS
	owner     string // the service that brought tls
	locations map[string]location
}

// socket is what nginx has once for an address and port.
type socket struct {
	tls, grpc, http string // a service that wants it so; empty: none
}

// layout puts routes in order: one server for each socket and host name, with
// the services as its locations. nginx would take two servers of one name
// without a word and ignore the second.
func layout(t proxy.Table, ipv6 bool) ([]server, error) {
	places, sockets := map[at]*place{}, map[string]*socket{}
	for _, r := range t.Routes {
		if err := validate(r); err != nil {
			return nil, err
		}
		if err := placeRoute(r, ipv6, places, sockets); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sockets)) {
		s := sockets[name]
		if s.tls == "" && s.grpc != "" && s.http != "" {
			return nil, invalid(s.grpc, "give the gRPC service a port of its own in http.listen, or use tls",
				"http.grpc: without TLS, nginx speaks only HTTP/2 at port %s, where service %q wants HTTP/1.1", name, s.http)
		}
	}
	return servers(places, sockets), nil
}

func placeRoute(r proxy.Route, ipv6 bool, places map[at]*place, sockets map[string]*socket) error {
	h := r.HTTP
	hosts := h.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	put := func(listen spec.Listen, tls *spec.TLS, l location) error {
		for _, name := range listenAt(listen, ipv6) {
			s := sockets[name]
			if s == nil {
				s = &socket{}
				sockets[name] = s
			}
			other := s.http + s.grpc
			if tls != nil {
				other, s.tls = "", cmp.Or(s.tls, r.Service)
				if s.http != "" {
					other = s.http
				}
			} else if s.tls != "" {
				other = s.tls
			}
			if (tls != nil) != (s.tls != "") || tls != nil && other != "" {
				return invalid(r.Service, "give one of the two another port in http.listen",
					"http.tls: port %s is with TLS for one service and without for another, %q", name, other)
			}
			if l.GRPC && tls == nil {
				s.grpc = r.Service
			} else if tls == nil {
				s.http = r.Service
			}
			for _, host := range hosts {
				if err := putLocation(r, at{name, host}, tls, l, places); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := put(h.Listen, h.TLS, location{Service: r.Service, GRPC: h.GRPC}); err != nil {
		return err
	}
	if h.TLS == nil || !h.TLS.Redirect {
		return nil
	}
	port := ""
	if h.Listen.Port != 443 {
		port = fmt.Sprintf(":%d", h.Listen.Port)
	}
	return put(spec.Listen{Addr: h.Listen.Addr, Port: 80}, nil, location{Service: r.Service, Redirect: true, Port: port})
}

// matches returns the arguments of location for a prefix: /shop is for /shop
// and what is below it, and not for /shopping.
func matches(path string) []string {
	if strings.HasSuffix(path, "/") {
		return []string{path}
	}
	return []string{"= " + path, path + "/"}
}

func putLocation(r proxy.Route, a at, tls *spec.TLS, l location, places map[at]*place) error {
	p := places[a]
	if p == nil {
		p = &place{tls: tls, owner: r.Service, locations: map[string]location{}}
		places[a] = p
	}
	if tls != nil && (p.tls.Certificate != tls.Certificate || p.tls.Key != tls.Key) {
		return invalid(r.Service, "give both the same certificate and key",
			"http.tls: service %q shows another certificate for host name %q", p.owner, a.host)
	}
	for _, match := range matches(r.HTTP.Path) {
		if other, ok := p.locations[match]; ok {
			return fault.New(fault.ErrDefinition, "change http.hosts, http.path or http.listen of one of them",
				"%w: services %q and %q both claim %s of host name %q at %s", proxy.ErrRefused, other.Service, r.Service, r.HTTP.Path, a.host, a.socket)
		}
		l.Match = match
		p.locations[match] = l
	}
	return nil
}

// servers turns places into blocks. Sockets at which a host name has the same
// locations share a block.
func servers(places map[at]*place, sockets map[string]*socket) []server {
	for name, s := range sockets {
		if _, ok := places[at{name, ""}]; !ok {
			nobody := &place{owner: "", locations: map[string]location{}}
			if s.tls != "" {
				nobody.tls = &spec.TLS{}
			}
			places[at{name, ""}] = nobody
		}
	}
	keys := slices.SortedFunc(maps.Keys(places), func(a, b at) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.socket, b.socket))
	})
	var list []server
	for _, k := range keys {
		s, merged := block(k, places[k], sockets[k.socket]), false
		for i := len(list) - 1; i >= 0 && list[i].host == k.host && !merged; i-- {
			if merged = same(list[i], s); merged {
				list[i].Listen = append(list[i].Listen, s.Listen...)
			}
		}
		if !merged {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, compareServers)
	return list
}

func block(k at, p *place, sock *socket) server {
	s := server{Names: k.host, TLS: p.tls, Nobody: p.owner == "", host: k.host, order: 1}
	listen := k.socket
	if sock.tls != "" {
		listen += " ssl http2"
	} else if sock.grpc != "" {
		listen += " http2"
	}
	s.Listen = []string{listen}
	switch {
	case s.Nobody:
		// A name that no request has, so that it is asked only as the default
		// of a socket for which no other file has one.
		s.Names, s.order = "nobody.invalid", 0
	case k.host == "":
		// Wins over the default_server of other files. It is first in this
		// file, so that clients that name no host over TLS find it.
		s.Names, s.order = `"" ~.`, 0
	}
	for _, match := range slices.Sorted(maps.Keys(p.locations)) {
		l := p.locations[match]
		s.Locations = append(s.Locations, l)
		s.Proxies = s.Proxies || !l.Redirect
	}
	return s
}

func same(a, b server) bool {
	tls := a.TLS == nil && b.TLS == nil || a.TLS != nil && b.TLS != nil && *a.TLS == *b.TLS
	return a.Nobody == b.Nobody && tls && a.Proxies == b.Proxies && slices.Equal(a.Locations, b.Locations) &&
		params(a.Listen[0]) == params(b.Listen[0])
}

// params are what follows the address in an argument of listen.
func params(listen string) string {
	_, p, _ := strings.Cut(listen, " ")
	return p
}
