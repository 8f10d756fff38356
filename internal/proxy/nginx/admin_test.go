package nginx

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/proxy"
)

func TestParseStatus(t *testing.T) {
	s, err := parseStatus("boot ab\nstructure cd\ngeneration 4\ncycle 2\nmaster 7\nservice shop a@10.0.0.1:80*1\nservice idle \nworker 9 2\nflight [fd00::1]:80 3\n" +
		"requests shop.v1.0a1b-1-1 12,3\nrequests none@idle 4,4\nsome later word\nend\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.boot != "ab" || s.structure != "cd" || s.generation != 4 || s.cycle != 2 || s.master != 7 || s.workers[9] != 2 ||
		s.services["shop"] != "a@10.0.0.1:80*1" || s.flight[netip.MustParseAddrPort("[fd00::1]:80")] != 3 {
		t.Errorf("status = %+v", s)
	}
	if len(s.requests) != 1 || s.requests["shop.v1.0a1b-1-1"] != (proxy.Count{Requests: 12, Errors: 3}) || len(s.unserved) != 1 || s.unserved["idle"] != 4 {
		t.Errorf("requests = %v, unserved %v", s.requests, s.unserved)
	}
	if value, ok := s.services["idle"]; !ok || value != "" {
		t.Errorf("service without peers = %q, %v", value, ok)
	}
	for _, text := range []string{"", "boot ab\n", "end\n", "boot ab\ngeneration x\nend\n", "boot ab\nflight x 1\nend\n",
		"boot ab\nrequests a 1\nend\n", "boot ab\nrequests a ,1\nend\n", "boot ab\nrequests none@a x\nend\n", "<html>"} {
		if _, err := parseStatus(text); err == nil {
			t.Errorf("%q is taken for an answer", text)
		}
	}
}

func TestProxy_AdminIsChosenOnceAndRemembered(t *testing.T) {
	p := New(Config{StateDir: t.TempDir(), Namespace: "conductor"})
	if _, err := p.admin(false); !os.IsNotExist(err) && err == nil {
		t.Fatal("there is an admin address before one was chosen")
	}
	if entries, _ := os.ReadDir(p.c.StateDir); len(entries) != 0 {
		t.Errorf("asking left %v", entries)
	}
	a, err := p.admin(true)
	if err != nil {
		t.Fatal(err)
	}
	if !a.addr.Addr().IsLoopback() || a.addr.Port() >= 32768 || len(a.token) != 64 {
		t.Errorf("admin = %v, %d digits; want loopback, below the ephemeral ports, 64", a.addr, len(a.token))
	}
	if b, err := New(p.c).admin(false); err != nil || b != a {
		t.Errorf("another process has %v, %v; want %v", b.addr, err, a.addr)
	}
	fixed := p.c
	fixed.Admin = netip.MustParseAddrPort("127.0.0.1:9999")
	if b, err := New(fixed).admin(false); err != nil || b.addr != fixed.Admin || b.token != a.token {
		t.Errorf("with an address given: %v, %v", b.addr, err)
	}
	file := filepath.Join(p.c.StateDir, "proxy", "admin.json")
	if err := os.WriteFile(file, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := p.admin(true); err != nil || b.token == a.token || b.token == "" {
		t.Errorf("after a torn file: %v", err)
	}
}

func TestMistake_FindsTheGravest(t *testing.T) {
	for _, c := range []struct{ out, message, place string }{
		{"nginx: [emerg] unknown directive \"oops\" in /etc/nginx/conf.d/bad.conf:3\nnginx: configuration file x test failed\n", `unknown directive "oops"`, "/etc/nginx/conf.d/bad.conf:3"},
		{"nginx: [alert] could not open error log file: open() failed\n2026/11/21 06:06:07 [emerg] 7#7: unknown directive \"oops\" in /a b:1\n", `unknown directive "oops" in /a b:1`, ":"},
		{"2026/11/21 06:06:07 [emerg] 7#7: cannot load certificate \"/x\": BIO_new_file() failed\n", `cannot load certificate "/x": BIO_new_file() failed`, ":"},
		{"sh: nginx: not found\n", "", ":"},
	} {
		message, file, line, _ := mistake(c.out)
		if message != c.message || file+":"+line != c.place {
			t.Errorf("%q: %q at %s:%s, want %q at %s", strings.TrimSpace(c.out), message, file, line, c.message, c.place)
		}
	}
}

func TestKernelAddr(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000:0050":                         "0.0.0.0:80",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"0000000000000000FFFF00000100007F:0050": "127.0.0.1:80",
	} {
		if got, ok := kernelAddr(text); !ok || got.String() != want {
			t.Errorf("%s = %v, want %s", text, got, want)
		}
	}
	if _, ok := kernelAddr("zz:1"); ok {
		t.Error("no address was read as one")
	}
}
