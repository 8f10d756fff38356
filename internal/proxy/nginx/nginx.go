// Package nginx makes the host's nginx serve a table, by Debian's Lua module:
// which instances a service has changes in the running nginx, without a
// reload, and requests in flight are counted by instance.
//
// All routes are in one file, conductor.conf. Its structure (host names,
// paths, addresses, TLS, the Lua program) changes by a reload; the peers of
// each service are in it for nginx's next start, and are handed to the running
// nginx over a loopback address that asks for a token. Whatever is done is
// proved by asking the running nginx back.
//
// It imports proxy, spec and fault; cmd alone imports it.
package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
	"conductor/internal/proxy"
)

// DefaultProveTimeout is how long the running nginx may take to come to serve
// a new file. A reload takes some 150 ms; Debian's largest sites some seconds.
const DefaultProveTimeout = 5 * time.Second

// Config is how nginx is run on this host.
type Config struct {
	ConfigDir string // conductor.conf is written there; nginx's http block includes it
	StateDir  string // the admin token and port are kept in its folder proxy
	Namespace string
	Test      []string       // tests the whole configuration: nginx -t
	Reload    []string       // makes the master read it again: nginx -s reload
	Trusted   []netip.Prefix // balancers whose X-Forwarded-* are believed
	Admin     netip.AddrPort // loopback; port 0: a free one, chosen once and remembered
	Switch    string         // auto, dynamic, reload
	// ProveTimeout is how long a proof is waited for; 0: DefaultProveTimeout.
	ProveTimeout time.Duration
}

// Proxy is nginx with its Lua module. It is a proxy.Proxy.
type Proxy struct {
	c  Config
	mu sync.Mutex // one change at a time in this process; callers lock between processes

	read parsed   // the file as it was read last: it is looked at often and seldom changes
	made rendered // the structure as it was made last: mostly only peers change; under mu
}

// rendered is a structure, and what it was made from.
type rendered struct {
	routes   []proxy.Route // without their targets
	settings settings
	d        document // without peers
}

// render makes the file for the table, anew where its structure is not the last one.
func (p *Proxy) render(t proxy.Table, s settings) (document, error) {
	bare := slices.Clone(t.Routes)
	for i := range bare {
		bare[i].Targets = nil
	}
	if p.made.d.structure == "" || !reflect.DeepEqual(p.made.routes, bare) || !reflect.DeepEqual(p.made.settings, s) {
		d, err := render(t, s)
		if err != nil {
			return document{}, err
		}
		p.made = rendered{bare, s, document{head: d.head, tail: d.tail, structure: d.structure}}
		return d, nil
	}
	for _, r := range t.Routes {
		if err := validate(r); err != nil {
			return document{}, err
		}
	}
	d := p.made.d
	d.peers = peersOf(t)
	return d, nil
}

// parsed is the file with what parse found in it.
type parsed struct {
	file atomicfile.Reader

	mu   sync.Mutex
	text []byte
	d    document
	err  error
}

// wrote takes in what the file is now.
func (p *parsed) wrote(text []byte, d document) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.d, p.err = text, d, nil
}

// parse returns what parse does; it is not to be changed.
func (p *parsed) parse(text []byte) (document, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text == nil || !bytes.Equal(p.text, text) {
		p.text = text
		p.d, p.err = parse(string(text))
	}
	return p.d, p.err
}

var _ proxy.Proxy = (*Proxy)(nil)

// New returns the proxy. It does nothing yet.
func New(c Config) *Proxy {
	if c.ProveTimeout == 0 {
		c.ProveTimeout = DefaultProveTimeout
	}
	if !c.Admin.Addr().IsValid() {
		c.Admin = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.Admin.Port())
	}
	return &Proxy{c: c}
}

// File is the path of the file that holds all routes.
func (p *Proxy) File() string { return filepath.Join(p.c.ConfigDir, "conductor.conf") }

// supported refuses what this adapter does not do.
func (p *Proxy) supported() error {
	if p.c.Switch == "reload" {
		return unsupported("proxy.switch: reload is not there yet")
	}
	if !p.c.Admin.Addr().IsLoopback() {
		return fault.New(fault.ErrDefinition, "give proxy.admin a loopback address, 127.0.0.1:0", "%w: proxy.admin %s is not a loopback address", proxy.ErrRefused, p.c.Admin)
	}
	return nil
}

// settings returns what a file is made from, with the admin address and token
// of this host, which are made on first use.
func (p *Proxy) settings() (settings, admin, error) {
	a, err := p.admin(true)
	if err != nil {
		return settings{}, admin{}, err
	}
	s := settings{namespace: p.c.Namespace, admin: a.addr, token: a.digest(), trusted: slices.Clone(p.c.Trusted)}
	if b, err := os.ReadFile("/proc/net/if_inet6"); err == nil && len(b) > 0 {
		s.ipv6 = true
	}
	return s, a, nil
}

// onDisk returns the file as it is. ok is false where there is none, or none
// that Conductor wrote whole: its text is returned all the same.
func (p *Proxy) onDisk() (d document, text []byte, ok bool, err error) {
	text, err = p.read.file.Read(p.File())
	if errors.Is(err, fs.ErrNotExist) {
		return document{}, nil, false, nil
	}
	if err != nil {
		return document{}, nil, false, fault.New(fault.ErrHost, "", "read nginx file: %w", err)
	}
	d, perr := p.read.parse(text)
	return d, text, perr == nil, nil
}

// Observe asks the running nginx what it serves.
func (p *Proxy) Observe(ctx context.Context) (proxy.Observed, error) {
	if err := p.supported(); err != nil {
		return proxy.Observed{}, err
	}
	d, text, ok, err := p.onDisk()
	if err != nil {
		return proxy.Observed{}, err
	}
	a, err := p.admin(false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return proxy.Observed{}, err
	}
	var st status
	if err == nil {
		st, err = a.askTwice(ctx)
	}
	if err != nil {
		if text == nil && ctx.Err() == nil && !errors.Is(err, errTwoMasters) {
			// No file, and nobody answers: nothing of ours is served, nor
			// will be when nginx starts.
			return proxy.Observed{Targets: map[string][]proxy.Target{}, InFlight: map[netip.AddrPort]int{},
				Requests: map[string]proxy.Count{}, Unserved: map[string]uint64{}, Counted: true}, nil
		}
		return proxy.Observed{}, p.unreachable(ctx, err)
	}
	o := proxy.Observed{Targets: make(map[string][]proxy.Target, len(st.services)), InFlight: st.flight, Requests: st.requests, Unserved: st.unserved, Counted: true}
	for service, value := range st.services {
		if o.Targets[service], err = decode(value); err != nil {
			return proxy.Observed{}, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
		}
	}
	// A file with other peers would be served after nginx's next start, so it
	// is not what was proved either.
	o.Routes = ok && st.structure == d.structure && d.peers.sameValues(peers{values: st.services})
	return o, nil
}
