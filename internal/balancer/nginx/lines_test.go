package nginx

import (
	"errors"
	"strings"
	"testing"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

const block = `# the team's own
server { listen 1; }
upstream blog { # another
	server 192.0.2.1;
}
upstream shop {
	least_conn;
	server 192.0.2.1:80 weight=2; # web1
	server	192.0.2.2 down;
	  server "192.0.2.3:8080"   max_fails=3 down fail_timeout=5s;   # web3 # conductor: drained
	#server 192.0.2.4;
	server backup.example.com backup;
	server [2001:DB8::5]:81 resolve;
	keepalive 32;
}
server {
	server_name 192.0.2.1;
}`

func TestParse_FindsTheServersOfItsUpstream(t *testing.T) {
	f, err := parse(block, "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address              string
		known, down, drained bool
	}{
		{"192.0.2.1", true, false, false},
		{"192.0.2.1:80", true, false, false},
		{"192.0.2.1:81", false, false, false},
		{"192.0.2.2", true, true, false}, // a person wrote it
		{"192.0.2.3:8080", true, true, true},
		{"192.0.2.4", false, false, false},
		{"Backup.Example.com", true, false, false},
		{"[2001:db8:0::5]:81", true, false, false},
	} {
		l, ok := f.host(c.address)
		if ok != c.known || l.down != c.down || l.drained != c.drained {
			t.Errorf("%s: known %t, down %t, drained %t; want %+v", c.address, ok, l.down, l.drained, c)
		}
	}
	if f.text() != block {
		t.Errorf("unchanged it is\n%s", f.text())
	}
}

func TestSet_ChangesOneWord(t *testing.T) {
	f, err := parse(block, "shop")
	if err != nil {
		t.Fatal(err)
	}
	f.set("192.0.2.1", true, true)
	f.set("192.0.2.2", true, true)
	f.set("192.0.2.3:8080", false, false)
	f.set("[2001:db8::5]:81", true, false)
	want := strings.NewReplacer(
		"weight=2; # web1", "weight=2 down; # web1 # conductor: drained",
		"server	192.0.2.2 down;", "server	192.0.2.2 down; # conductor: drained",
		`"192.0.2.3:8080"   max_fails=3 down fail_timeout=5s;   # web3 # conductor: drained`, `"192.0.2.3:8080" max_fails=3 fail_timeout=5s;   # web3`,
		"resolve;", "resolve down; # conductor: away",
	).Replace(block)
	if f.text() != want {
		t.Errorf("it is\n%s\nwant\n%s", f.text(), want)
	}
	g, err := parse(f.text(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for address, says := range map[string]string{"192.0.2.1": "down, by a deploy", "192.0.2.3:8080": "", "[2001:db8::5]:81": "down"} {
		if l, _ := g.host(address); l.says() != says {
			t.Errorf("%s says %q, want %q", address, l.says(), says)
		}
	}
}

func TestParse_TakesAFileOfLines(t *testing.T) {
	f, err := parse("server 192.0.2.1;\nserver 192.0.2.2; # conductor: drained\n", "shop")
	if err != nil {
		t.Fatal(err)
	}
	// Who took down away by hand has put it in again.
	if l, ok := f.host("192.0.2.2"); !ok || l.down || l.drained {
		t.Errorf("%+v, %t", l, ok)
	}
	f.set("192.0.2.1", true, false)
	if want := "server 192.0.2.1 down; # conductor: away\nserver 192.0.2.2; # conductor: drained\n"; f.text() != want {
		t.Errorf("it is %q, want %q", f.text(), want)
	}
}

func TestParse_RefusesWhatItCouldMistake(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		class error
	}{
		"another upstream":    {"upstream blog {\nserver a;\n}\n", balancer.ErrUnknown},
		"all on a line":       {"upstream shop { server a; server b; }", fault.ErrDefinition},
		"two on a line":       {"server a; server b;", fault.ErrDefinition},
		"two of the name":     {"upstream shop {\n}\nupstream shop {\n}\n", fault.ErrDefinition},
		"the block's end too": {"upstream shop {\nserver a; }", fault.ErrDefinition},
	} {
		if _, err := parse(c.text, "shop"); !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", name, err, c.class)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(block)
	f.Add("server 'a' down ; # conductor: away")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(text, "shop")
		if err != nil {
			return
		}
		if p.text() != text {
			t.Fatalf("unchanged it is %q", p.text())
		}
		for _, l := range p.servers {
			p.set(l.address, true, true)
			q, err := parse(p.text(), "shop")
			if err != nil {
				t.Fatalf("%q: %v", p.text(), err)
			}
			if got, ok := q.host(l.address); !ok || !got.down || !got.drained || len(q.servers) != len(p.servers) {
				t.Fatalf("%q: %+v, %t", p.text(), got, ok)
			}
		}
	})
}
