package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

func testSettings() settings {
	return settings{namespace: "conductor", admin: netip.MustParseAddrPort("127.0.0.1:8999"), token: "dG9rZW4=", ipv6: true}
}

func route(id string, h spec.HTTP, targets ...proxy.Target) proxy.Route {
	if h.Path == "" {
		h.Path = "/"
	}
	if h.Listen.Port == 0 {
		h.Listen.Port = 80
	}
	return proxy.Route{Service: id, HTTP: h, Targets: targets}
}

func tableOf(routes ...proxy.Route) proxy.Table { return proxy.Table{Routes: routes} }

// directive is one directive of an nginx file.
type directive struct {
	words []string
	block []directive
	lua   bool
}

// tokenize parses nginx's syntax as nginx does: words, quotes, escapes,
// comments, and Lua blocks up to the brace that ends them.
func tokenize(text string) ([]directive, error) {
	p := &parser{text: text}
	list, err := p.list(false)
	if err == nil && p.at < len(text) {
		err = fmt.Errorf("text after the end: %.40q", text[p.at:])
	}
	return list, err
}

type parser struct {
	text string
	at   int
}

func (p *parser) list(inner bool) ([]directive, error) {
	var list []directive
	var d directive
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			p.at++
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		case c == ';':
			p.at++
			list, d = append(list, d), directive{}
		case c == '}':
			if !inner || len(d.words) > 0 {
				return nil, errors.New("unexpected }")
			}
			p.at++
			return list, nil
		case c == '{':
			p.at++
			if strings.HasSuffix(d.words[0], "_by_lua_block") {
				end := p.lua()
				if end < 0 {
					return nil, errors.New("a Lua block has no end")
				}
				d.lua, p.at = true, end
			} else {
				var err error
				if d.block, err = p.list(true); err != nil {
					return nil, err
				}
			}
			list, d = append(list, d), directive{}
		default:
			d.words = append(d.words, p.word())
		}
	}
	if inner || len(d.words) > 0 {
		return nil, errors.New("unexpected end")
	}
	return list, nil
}

func (p *parser) word() string {
	var b strings.Builder
	if q := p.text[p.at]; q == '"' || q == '\'' {
		for p.at++; p.at < len(p.text) && p.text[p.at] != q; p.at++ {
			if p.text[p.at] == '\\' {
				p.at++
			}
			b.WriteByte(p.text[p.at])
		}
		p.at++
		return b.String()
	}
	for ; p.at < len(p.text) && strings.IndexByte(" \t\r\n;{", p.text[p.at]) < 0; p.at++ {
		if p.text[p.at] == '$' && p.at+1 < len(p.text) && p.text[p.at+1] == '{' {
			b.WriteByte('$')
			p.at++
		}
		b.WriteByte(p.text[p.at])
	}
	return b.String()
}

// lua returns where the Lua block that starts here ends.
func (p *parser) lua() int {
	depth := 1
	for i := p.at; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case strings.HasPrefix(p.text[i:], "--"):
			for i < len(p.text) && p.text[i] != '\n' {
				i++
			}
		case c == '"' || c == '\'':
			for i++; i < len(p.text) && p.text[i] != c; i++ {
				if p.text[i] == '\\' {
					i++
				}
			}
		}
	}
	return -1
}

// shape writes directives without their arguments.
func shape(list []directive) string {
	var names []string
	for _, d := range list {
		s := d.words[0]
		if d.block != nil {
			s += "{" + shape(d.block) + "}"
		}
		names = append(names, s)
	}
	return strings.Join(names, " ")
}

func find(list []directive, name string) []directive {
	var found []directive
	for _, d := range list {
		if d.words[0] == name {
			found = append(found, d)
		}
	}
	return found
}

func mustRender(t testing.TB, table proxy.Table) (document, []directive) {
	t.Helper()
	d, err := render(table, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	list, err := tokenize(string(d.bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, d.bytes())
	}
	return d, list
}

// summary is what the servers of a file are for.
func summary(list []directive) string {
	var b strings.Builder
	for _, s := range find(list, "server")[1:] {
		for _, l := range find(s.block, "listen") {
			fmt.Fprintf(&b, "%s ", strings.Join(l.words[1:], " "))
		}
		fmt.Fprintf(&b, "%q", find(s.block, "server_name")[0].words[1:])
		if find(s.block, "ssl_reject_handshake") != nil {
			b.WriteString(" reject")
		}
		for _, r := range find(s.block, "return") {
			fmt.Fprintf(&b, " return %s", r.words[1])
		}
		for _, l := range find(s.block, "location") {
			if strings.HasPrefix(l.words[1], "@") {
				continue
			}
			fmt.Fprintf(&b, " (%s", strings.Join(l.words[1:], " "))
			for _, v := range find(l.block, "set") {
				fmt.Fprintf(&b, " %s", v.words[2])
			}
			for _, v := range find(l.block, "return") {
				fmt.Fprintf(&b, " %s", strings.Join(v.words[1:], " "))
			}
			for _, v := range find(l.block, "grpc_pass") {
				fmt.Fprintf(&b, " %s", v.words[0])
			}
			b.WriteString(")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRender_OneServerForEachSocketAndName(t *testing.T) {
	cert := &spec.TLS{Certificate: "/etc/shop/cert.pem", Key: "/etc/shop/key.pem", Redirect: true}
	for _, c := range []struct {
		name  string
		table proxy.Table
		want  string
	}{
		{"empty", tableOf(), ""},
		{"every name", tableOf(route("shop", spec.HTTP{})), `80 [::]:80 ["" "~."] (/ shop)` + "\n"},
		{"paths of one name", tableOf(route("cart", spec.HTTP{Hosts: []string{"s.example"}, Path: "/cart"}), route("shop", spec.HTTP{Hosts: []string{"s.example", "t.example"}})),
			`80 [::]:80 ["nobody.invalid"] return 404
80 [::]:80 ["s.example"] (/ shop) (/cart/ cart) (= /cart cart)
80 [::]:80 ["t.example"] (/ shop)
`},
		{"tls with redirect", tableOf(route("blog", spec.HTTP{Hosts: []string{"b.example"}}),
			route("shop", spec.HTTP{Hosts: []string{"s.example"}, TLS: cert, Listen: spec.Listen{Port: 8443}})),
			`80 [::]:80 ["nobody.invalid"] return 404
8443 ssl http2 [::]:8443 ssl http2 ["nobody.invalid"] reject
80 [::]:80 ["b.example"] (/ blog)
80 [::]:80 ["s.example"] (/ 308 https://$host:8443$request_uri)
8443 ssl http2 [::]:8443 ssl http2 ["s.example"] (/ shop)
`},
		{"one address", tableOf(route("shop", spec.HTTP{Listen: spec.Listen{Addr: netip.MustParseAddr("::1"), Port: 81}})), `[::1]:81 ["" "~."] (/ shop)` + "\n"},
		{"an address beside all of them", tableOf(route("a", spec.HTTP{}), route("b", spec.HTTP{Path: "/b/", Listen: spec.Listen{Addr: netip.IPv4Unspecified(), Port: 80}})),
			`80 ["" "~."] (/ a) (/b/ b)
[::]:80 ["" "~."] (/ a)
`},
		{"grpc", tableOf(route("api", spec.HTTP{GRPC: true, Listen: spec.Listen{Port: 50051}})), `50051 http2 [::]:50051 http2 ["" "~."] (/ api grpc_pass)` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, list := mustRender(t, c.table)
			if got := summary(list); got != c.want {
				t.Errorf("servers:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestRender_RefusesWhatContradicts(t *testing.T) {
	tls := func(cert string) *spec.TLS { return &spec.TLS{Certificate: cert, Key: "/k"} }
	host := []string{"s.example"}
	for name, table := range map[string]proxy.Table{
		"one route twice":         tableOf(route("a", spec.HTTP{Hosts: host}), route("b", spec.HTTP{Hosts: host})),
		"a path with and without": tableOf(route("a", spec.HTTP{Path: "/x"}), route("b", spec.HTTP{Path: "/x/"})),
		"two certificates":        tableOf(route("a", spec.HTTP{Hosts: host, TLS: tls("/1")}), route("b", spec.HTTP{Hosts: host, Path: "/b", TLS: tls("/2")})),
		"tls after plain":         tableOf(route("a", spec.HTTP{}), route("b", spec.HTTP{Hosts: host, TLS: tls("/1")})),
		"plain after tls":         tableOf(route("a", spec.HTTP{Hosts: host, TLS: tls("/1")}), route("b", spec.HTTP{})),
		"grpc beside http":        tableOf(route("a", spec.HTTP{GRPC: true}), route("b", spec.HTTP{Hosts: host})),
		"redirect over a route":   tableOf(route("a", spec.HTTP{Hosts: host}), route("b", spec.HTTP{Hosts: host, Listen: spec.Listen{Port: 443}, TLS: &spec.TLS{Certificate: "/c", Key: "/k", Redirect: true}})),
	} {
		if _, err := render(table, testSettings()); !errors.Is(err, fault.ErrDefinition) || fault.Hint(err) == "" {
			t.Errorf("%s: %v, want a definition error with a hint", name, err)
		}
	}
}

func TestRender_RefusesHostileValues(t *testing.T) {
	for _, evil := range []string{"x;y", "x{", "x}", "x y", "x\ny", "x\"y", "x'y", "$x", "x#", "x\\", "x\x00", "", "é", "~.", "x*", "..", "x..y"} {
		for name, r := range map[string]proxy.Route{
			"id":       route(evil, spec.HTTP{}),
			"host":     route("shop", spec.HTTP{Hosts: []string{evil}}),
			"instance": route("shop", spec.HTTP{}, proxy.Target{Instance: "-" + evil, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}),
		} {
			if _, err := render(tableOf(r), testSettings()); !errors.Is(err, fault.ErrDefinition) {
				t.Errorf("%s %q: %v, want a definition error", name, evil, err)
			}
		}
	}
	for _, evil := range []string{"/;", "/{", "/a b", "/$x", "/\n", "x", "/a//b", "/../a", "/a/.", "/\"", "/%2e", "/#"} {
		if _, err := render(tableOf(route("shop", spec.HTTP{Path: evil})), testSettings()); !errors.Is(err, fault.ErrDefinition) {
			t.Errorf("path %q: %v, want a definition error", evil, err)
		}
	}
	for _, evil := range []string{"cert.pem", "/c\n", "/$x", "/\x7f", "/\xff"} {
		tls := &spec.TLS{Certificate: evil, Key: "/k"}
		if _, err := render(tableOf(route("shop", spec.HTTP{TLS: tls})), testSettings()); !errors.Is(err, fault.ErrDefinition) {
			t.Errorf("certificate %q: %v, want a definition error", evil, err)
		}
	}
	for _, bad := range []proxy.Target{
		{Instance: "a", Weight: 1},
		{Instance: "a", Addr: netip.MustParseAddrPort("10.0.0.1:0"), Weight: 1},
		{Instance: "a", Addr: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Weight: 1},
		{Instance: "a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 0},
	} {
		if _, err := render(tableOf(route("shop", spec.HTTP{}, bad)), testSettings()); !errors.Is(err, fault.ErrDefinition) {
			t.Errorf("target %+v: %v, want a definition error", bad, err)
		}
	}
}

func TestDocument_PeersAreNoStructure(t *testing.T) {
	a := proxy.Target{Instance: "a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}
	b := proxy.Target{Instance: "b.2-1", Addr: netip.MustParseAddrPort("[fd00::1]:80"), Weight: 9}
	one, _ := mustRender(t, tableOf(route("shop", spec.HTTP{}, a)))
	two, _ := mustRender(t, tableOf(route("shop", spec.HTTP{}, a, b)))
	other, _ := mustRender(t, tableOf(route("shop", spec.HTTP{Path: "/x"}, a)))
	if one.structure != two.structure || one.structure == other.structure {
		t.Errorf("structures %.8s, %.8s, %.8s: want the first two alike, and the third another", one.structure, two.structure, other.structure)
	}
	two.peers.generation = 7
	got, err := parse(string(two.bytes()))
	if err != nil || got.structure != two.structure || got.peers.generation != 7 || !got.peers.sameValues(two.peers) {
		t.Errorf("parse = %+v, %v", got.peers, err)
	}
	targets, err := decode(got.peers.values["shop"])
	if err != nil || !slices.Equal(targets, []proxy.Target{a, b}) {
		t.Errorf("targets = %v, %v", targets, err)
	}
	text := string(two.bytes())
	for i := 0; i < len(text); i += 7 {
		if _, err := parse(text[:i]); err == nil {
			t.Fatalf("a file torn at %d is taken for whole", i)
		}
		// Peers that somebody else wrote are read as what they say: the loop
		// compares them with the goal.
		got, err := parse(text[:i] + "~" + text[i+1:])
		if err == nil && text[i] != '~' && got.peers.sameValues(two.peers) {
			t.Fatalf("a file changed at %d is taken for whole", i)
		}
	}
}

func TestName_NamespacesDoNotMeet(t *testing.T) {
	seen := map[string]string{}
	for _, ns := range []string{"conductor", "a", "a-b", "a_b", "staging", "a-b_c", "a_b-c"} {
		if other, ok := seen[name(ns)]; ok {
			t.Errorf("namespaces %q and %q are both %q", ns, other, name(ns))
		}
		seen[name(ns)] = ns
	}
}

// FuzzRender: whatever a definition says, it is refused, or the file has the
// directives that a harmless definition of the same form has, and no other.
func FuzzRender(f *testing.F) {
	f.Add("shop", "shop.example.com", "/", "/etc/cert.pem", "/etc/key.pem", "shop.v1.ab12-1-1")
	f.Add("shop", "x;}", "/a b{", "/c\"; include /etc/passwd; #", "/k\\", "a@1*2 b")
	f.Add("a_b", "*.x", "/x/", `/c\`, "/k' ", "x\n]]}")
	f.Fuzz(func(t *testing.T, id, host, path, cert, key, instance string) {
		build := func(id, host, path, cert, key, instance string) proxy.Table {
			return tableOf(route(id, spec.HTTP{Hosts: []string{host}, Path: path, TLS: &spec.TLS{Certificate: cert, Key: key}},
				proxy.Target{Instance: instance, Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}))
		}
		d, err := render(build(id, host, path, cert, key, instance), testSettings())
		if err != nil {
			return
		}
		list, err := tokenize(string(d.bytes()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, d.bytes())
		}
		harmless := "/x"
		if strings.HasSuffix(path, "/") || path == "" {
			harmless = "/x/"
		}
		_, want := mustRender(t, build("x", "x", harmless, "/c", "/k", "x"))
		if got := shape(list); got != shape(want) {
			t.Fatalf("directives:\n%s\nwant:\n%s", got, shape(want))
		}
		s := find(list, "server")[2]
		if got := find(s.block, "ssl_certificate")[0].words; len(got) != 2 || got[1] != cert {
			t.Errorf("ssl_certificate %q, want %q", got, cert)
		}
		if got := find(s.block, "server_name")[0].words; len(got) != 2 || got[1] != host {
			t.Errorf("server_name %q, want %q", got, host)
		}
		if back, err := parse(string(d.bytes())); err != nil || back.peers.values[id] != encode(build(id, host, path, cert, key, instance).Routes[0].Targets) {
			t.Errorf("parse: %v, %v", back.peers, err)
		}
	})
}
