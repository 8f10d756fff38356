package spec

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

var (
	fleetTable = sync.OnceValue(fleetKeys)
	fleetPaths = sync.OnceValue(func() []string { return fleetTable().schema("hosts").paths("") })
)

// ParseFleet reads fleet.yml. Paths in it are relative to file, which is made
// absolute by the working directory. All mistakes are returned together, as
// Problems.
func ParseFleet(file string, data []byte) (Fleet, error) {
	d := newDecoder(file)
	d.paths, d.foreign = fleetPaths(), fleetForeign
	f := Fleet{File: file, Balancer: Balancer{Kind: BalancerNone}}
	full, err := filepath.Abs(file)
	if err != nil {
		d.fail(position{}, "", "find the working directory: %s", err)
	}
	if root, ok := d.load(data); ok {
		fleetTable().read(root, &f, "hosts")
		d.fleetDefaults(&f, filepath.Dir(full))
		d.fleetRules(&f)
	}
	return f, d.problems.err()
}

// fleetForeign are keys that people bring from other tools or put in another
// place, and what to do instead.
var fleetForeign = map[string]string{
	"servers":  "write hosts: {NAME: {ssh: USER@HOST, roles: [ROLE]}}",
	"roles":    "write them in each host: hosts: {NAME: {roles: [ROLE]}}",
	"ssh":      "write it in each host: hosts: {NAME: {ssh: USER@HOST}}; what else ssh needs goes into ~/.ssh/config",
	"strategy": "write it in each service: services: {ID: {strategy: …}}",
	"test":     "write it in a service: services: {ID: {test: …}}",
	"migrate":  "write it in a service: services: {ID: {migrate: …}}",
	"image":    "a service's definition names its image",
	"registry": "hosts pull with their own credentials; without a registry write services: {ID: {image: ship}}",
}

// fleetDefaults fills in what depends on other keys, and makes paths absolute.
func (d *decoder) fleetDefaults(f *Fleet, dir string) {
	for i := range f.Hosts {
		h := &f.Hosts[i]
		key := "hosts." + h.Name
		if !d.has(key + ".ssh") {
			h.SSH = h.Name
		}
		if !d.has(key + ".address") {
			_, h.Address = splitDestination(h.SSH)
			if a, err := netip.ParseAddr(h.Address); err == nil && a.Is6() {
				h.Address = "[" + h.Address + "]"
			}
		}
		if !d.has(key + ".server") {
			h.Server = h.Name
		}
	}
	b := &f.Balancer
	if d.has("balancer.command") && !d.has("balancer.kind") {
		b.Kind = BalancerCommand
	}
	if b.Kind == BalancerHAProxy && !d.has("balancer.socket") {
		b.Socket = "/run/haproxy/admin.sock"
	}
	if f.Definitions != "" && !filepath.IsAbs(f.Definitions) {
		f.Definitions = filepath.Join(dir, f.Definitions)
	}
	for _, t := range f.Notify {
		t.within(dir)
	}
}

// fleetRules are what must hold between keys. Names that are wrong themselves
// have been reported, and are empty here.
func (d *decoder) fleetRules(f *Fleet) {
	d.hostRules(f)
	for _, s := range f.Services {
		if s.ID != "" {
			d.fleetServiceRules(f, s)
		}
	}
	d.balancerRules(f)
	for _, t := range f.Targets {
		for i, id := range t.Services {
			if _, err := f.Service(id); err != nil && t.Name != "" {
				d.failAt(fmt.Sprintf("targets.%s.services[%d]", t.Name, i), didYouMean(id, f.ids()), "there is no service %s here", id)
			}
		}
	}
}

// hostRules: a host is one machine, with names that nothing else has.
func (d *decoder) hostRules(f *Fleet) {
	had := map[string]string{}
	once := func(h FleetHost, key, has string) {
		if first, taken := had[key+" "+has]; taken {
			d.failAt("hosts."+h.Name+"."+key, "", "%s has the same: %s", first, has)
			return
		}
		had[key+" "+has] = h.Name
	}
	for _, h := range f.Hosts {
		if h.Name == "" {
			continue
		}
		for i, role := range h.Roles {
			if _, taken := f.Host(role); taken {
				d.failAt(fmt.Sprintf("hosts.%s.roles[%d]", h.Name, i), "give the role or the host another name", "there is a host %s", role)
			}
		}
		switch {
		case h.SSH == "":
		case h.Port == 0:
			once(h, "ssh", h.SSH)
		default:
			once(h, "ssh", fmt.Sprintf("%s, port %d", h.SSH, h.Port))
		}
		switch {
		case f.Balancer.Kind == BalancerHAProxy && h.Server != "":
			once(h, "server", h.Server)
		case f.Balancer.Kind == BalancerNginx && h.Address != "":
			once(h, "address", h.Address)
		}
	}
}

// fleetServiceRules: a service runs somewhere, and begins there.
func (d *decoder) fleetServiceRules(f *Fleet, s FleetService) {
	key := "services." + s.ID
	known := len(f.Hosts) > 0 && len(s.On) > 0
	for i, word := range s.On {
		if len(f.Hosts) == 0 || len(f.named([]string{word})) > 0 {
			continue
		}
		hint := didYouMean(word, f.words())
		if hint == "" {
			hint = "write roles: [" + word + "] in the hosts that it runs on"
		}
		d.failAt(fmt.Sprintf("%s.on[%d]", key, i), hint, "there is no host and no role %s", word)
		known = false
	}
	if !known {
		return
	}
	var names []string
	first := false
	for _, h := range f.named(s.On) {
		names = append(names, h.Name)
		first = first || h.Name == s.Strategy.First || h.Name == ""
	}
	if s.Strategy.First != "" && !first {
		hint := didYouMean(s.Strategy.First, names)
		if hint == "" {
			hint = "it runs on " + strings.Join(names, ", ")
		}
		d.failAt(key+".strategy.first", hint, "the service does not run on a host %s", s.Strategy.First)
	}
	if s.MaxFailed >= len(names) && s.MaxFailed > 0 {
		d.failAt(key+".max_failed", "", "must be less than the number of its hosts, which is %d", len(names))
	}
}

// balancerRules: each kind has keys that it needs, and keys that are not for it.
func (d *decoder) balancerRules(f *Fleet) {
	const key = "balancer"
	b := f.Balancer
	if b.Kind == "" {
		if !d.has(key + ".kind") {
			d.failAt(key, "write kind: haproxy, nginx or command, or balancer: none", "needs kind")
		}
		return
	}
	short := d.has(key + ".command") // it says itself what is missing in it
	for _, k := range balancerKeys() {
		path, kinds := key+"."+k.name, balancerKinds[k.name]
		mine := slices.Contains(kinds, b.Kind)
		switch {
		case kinds == nil: // kind itself
		case d.has(path) && !mine:
			d.failAt(path, "remove it", "is for %s, and not for %s", kindWords(kinds), b.Kind)
		case d.has(path) && d.has(key+".command."+k.name):
			d.failAt(path, "keep one of them", "is in balancer.command too")
		case mine && !d.has(path) && !short && k.name != "socket" && k.name != "command":
			d.failAt(key, "write "+balancerExamples[b.Kind], "%s needs %s", b.Kind, k.name)
		}
	}
}

func kindWords(kinds []BalancerKind) string {
	var words []string
	for _, k := range kinds {
		words = append(words, string(k))
	}
	return strings.Join(words, " and ")
}

// balancerKinds says which keys are for which kinds.
var balancerKinds = map[string][]BalancerKind{
	"on":      {BalancerHAProxy, BalancerNginx},
	"backend": {BalancerHAProxy, BalancerNginx},
	"socket":  {BalancerHAProxy},
	"file":    {BalancerNginx},
	"command": {BalancerCommand},
	"drain":   {BalancerCommand},
	"admit":   {BalancerCommand},
}

var balancerExamples = map[BalancerKind]string{
	BalancerHAProxy: "{kind: haproxy, on: HOST, backend: NAME}",
	BalancerNginx:   "{kind: nginx, on: HOST, backend: UPSTREAM, file: /PATH}",
	BalancerCommand: "{kind: command, drain: [WORD, …], admit: [WORD, …]}",
}

// ids are the services' ids.
func (f Fleet) ids() (ids []string) {
	for _, s := range f.Services {
		ids = append(ids, s.ID)
	}
	return ids
}
