package nginx

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"conductor/internal/proxy"
)

//go:embed conf.tmpl lua/*.lua
var files embed.FS

var conf = template.Must(template.New("conf.tmpl").Funcs(template.FuncMap{"quote": quote}).ParseFS(files, "conf.tmpl"))

// Lines of the file. Between peersBegin and peersEnd is all that changes
// without a reload; the rest is the structure, identified by its digest.
const (
	structureLine = "# structure "
	peersBegin    = "    -- peers: begin"
	peersEnd      = "    -- peers: end"
)

// noStructure stands where the digest will be while it is computed.
var noStructure = strings.Repeat("0", sha256.Size*2)

// settings are what a file is made from besides the table.
type settings struct {
	namespace string
	admin     netip.AddrPort
	token     string // digest of the admin token, base64
	trusted   []netip.Prefix
	ipv6      bool // the host speaks IPv6
}

// peers are the targets by service, and their generation.
type peers struct {
	generation uint64
	values     map[string]string // as encode writes them
}

// document is a file of nginx in its two parts.
type document struct {
	head, tail string // the structure, before and after the peers
	structure  string // digest of head and tail
	peers      peers
}

type header struct{ Key, Value string }

// view is what conf.tmpl shows.
type view struct {
	Namespace, Name, Module string
	Structure, Token        string
	State, Balance, Admin   string
	PeersBegin, PeersEnd    string
	AdminListen, AdminAddr  string
	Trusted, Real           []string
	Believed                []believed
	Headers                 []header
	Servers                 []server
}

// believed is a header that only a trusted balancer may set.
type believed struct{ Key, Var string }

var believedHeaders = []believed{
	{"Forwarded", "forwarded"},
	{"X-Forwarded-Prefix", "x_forwarded_prefix"},
	{"X-Forwarded-Scheme", "x_forwarded_scheme"},
	{"X-Forwarded-Server", "x_forwarded_server"},
	{"X-Forwarded-Ssl", "x_forwarded_ssl"},
}

// longestName is the longest namespace that names can have in them.
const longestName = 20

// name is the namespace as nginx can have it in the name of a variable. Two
// namespaces never have one name: - becomes __, and a namespace has no two in a
// row. A long one is summed: nginx's table of variables takes no long names.
func name(namespace string) string {
	if namespace == "conductor" {
		return namespace
	}
	if len(namespace) > longestName {
		return fmt.Sprintf("conductor_%.6x", sha256.Sum256([]byte(namespace)))
	}
	return "conductor__" + strings.ReplaceAll(namespace, "-", "__")
}

// render makes the file for the table. The peers have generation 0.
func render(t proxy.Table, s settings) (document, error) {
	if !serviceID.MatchString(s.namespace) {
		return document{}, fmt.Errorf("render nginx file: namespace %q is not valid", s.namespace)
	}
	servers, err := layout(t, s.ipv6)
	if err != nil {
		return document{}, err
	}
	n := name(s.namespace)
	v := view{
		Namespace: s.namespace, Name: n, Module: "conductor." + s.namespace,
		Structure: noStructure, Token: s.token,
		State: lua("state"), Balance: lua("balance"), Admin: lua("admin"),
		PeersBegin: peersBegin, PeersEnd: peersEnd,
		AdminListen: s.admin.String(), AdminAddr: s.admin.Addr().String(),
		Believed: believedHeaders, Servers: servers,
		Headers: headers(n, len(s.trusted) > 0),
	}
	for _, p := range s.trusted {
		v.Trusted = append(v.Trusted, p.Masked().String())
	}
	v.Real = v.Trusted

	var b strings.Builder
	if err := conf.Execute(&b, v); err != nil {
		return document{}, fmt.Errorf("render nginx file: %w", err)
	}
	d, err := split(b.String())
	if err != nil {
		return document{}, fmt.Errorf("render nginx file: %w", err)
	}
	d.structure = d.digest()
	d.head = strings.ReplaceAll(d.head, noStructure, d.structure)
	d.peers = peersOf(t)
	return d, nil
}

// headers are what a request brings to a target. Without a trusted balancer,
// what a client says of itself is overwritten.
func headers(name string, trusted bool) []header {
	own := func(variable, plain string) string {
		if trusted {
			return "$" + name + variable
		}
		return plain
	}
	list := []header{
		{"Host", "$" + name + "_host"},
		{"X-Real-IP", "$remote_addr"},
		{"X-Forwarded-For", own("_for", "$remote_addr")},
		{"X-Forwarded-Host", own("_forwarded_host", "$http_host")},
		{"X-Forwarded-Port", own("_port", "$server_port")},
		{"X-Forwarded-Proto", own("_proto", "$scheme")},
		{"Proxy", `""`}, // would become HTTP_PROXY in a CGI environment
	}
	for _, b := range believedHeaders {
		list = append(list, header{b.Key, own("_"+b.Var, `""`)})
	}
	return list
}

func peersOf(t proxy.Table) peers {
	p := peers{values: make(map[string]string, len(t.Routes))}
	for _, r := range t.Routes {
		p.values[r.Service] = encode(r.Targets)
	}
	return p
}

func lua(part string) string {
	b, err := files.ReadFile("lua/" + part + ".lua")
	if err != nil {
		panic(err) // embedded at build time
	}
	return string(b)
}

// bytes returns the whole file.
func (d document) bytes() []byte {
	var b strings.Builder
	b.WriteString(d.head)
	fmt.Fprintf(&b, "%s\n    c.init(%d, {\n", peersBegin, d.peers.generation)
	for _, service := range slices.Sorted(maps.Keys(d.peers.values)) {
		fmt.Fprintf(&b, "        [%q] = %q,\n", service, d.peers.values[service])
	}
	fmt.Fprintf(&b, "    })\n%s\n", peersEnd)
	b.WriteString(d.tail)
	return []byte(b.String())
}

// digest computes the digest of the structure.
func (d document) digest() string {
	h := sha256.New()
	head := d.head
	if d.structure != "" {
		head = strings.ReplaceAll(head, d.structure, noStructure)
	}
	h.Write([]byte(head))
	h.Write([]byte{0})
	h.Write([]byte(d.tail))
	return hex.EncodeToString(h.Sum(nil))
}

// split takes a file apart, without looking at its peers.
func split(text string) (document, error) {
	head, rest, ok := strings.Cut(text, peersBegin+"\n")
	_, tail, ok2 := strings.Cut(rest, peersEnd+"\n")
	if !ok || !ok2 {
		return document{}, fmt.Errorf("its peers are not where they should be")
	}
	return document{head: head, tail: tail}, nil
}

// parse reads a file that was rendered. An error means that it is not as
// Conductor wrote it: torn, or changed by hand.
func parse(text string) (document, error) {
	d, err := split(text)
	if err != nil {
		return document{}, err
	}
	_, rest, ok := strings.Cut(d.head, "\n"+structureLine)
	if !ok || len(rest) < len(noStructure) {
		return document{}, fmt.Errorf("it does not name its structure")
	}
	d.structure = rest[:len(noStructure)]
	if d.structure != d.digest() {
		return document{}, fmt.Errorf("it was changed by hand")
	}
	lines := strings.TrimSuffix(text[len(d.head)+len(peersBegin)+1:len(text)-len(d.tail)], peersEnd+"\n")
	d.peers.values = map[string]string{}
	for i, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		var service, value string
		switch {
		case i == 0:
			_, err = fmt.Sscanf(line, "    c.init(%d, {", &d.peers.generation)
		case line == "    })":
		default:
			if _, err = fmt.Sscanf(line, "        [%q] = %q,", &service, &value); err == nil {
				d.peers.values[service] = value
			}
		}
		if err != nil {
			return document{}, fmt.Errorf("its peers were changed by hand: line %q", line)
		}
	}
	if string(d.bytes()) != text {
		return document{}, fmt.Errorf("its peers were changed by hand")
	}
	return d, nil
}

// sameValues tells whether two sets of peers are the same, whatever their generation.
func (p peers) sameValues(q peers) bool { return maps.Equal(p.values, q.values) }

func compareServers(a, b server) int {
	return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Listen[0], b.Listen[0]), cmp.Compare(a.Names, b.Names))
}
