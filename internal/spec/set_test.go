package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/fault"
)

func files(texts map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range texts {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func load(t testing.TB, texts map[string]string) Set {
	t.Helper()
	s, err := LoadServices(files(texts), "services")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoadServices_SortsValidFromInvalid(t *testing.T) {
	s := load(t, map[string]string{
		"shop.yml":          "image: shop",
		"a_b-c.yml":         "image: abc",
		"broken.yml":        "imag: shop\nreplicas: x",
		"api.yaml":          "image: api",
		"Bad Name.yml":      "image: x",
		".hidden.yml":       "{",
		"README.md":         "text",
		"shop.yml~":         "{",
		"folder.yml/x.yml":  "image: x",
		"folder2/other.yml": "image: x",
	})
	if d := cmp.Diff([]string{"a_b-c", "shop"}, s.IDs()); d != "" {
		t.Error(d)
	}
	want := `services/Bad Name.yml:1:1: the file's name is not a valid service id: "Bad Name"
    hint: rename it: lower-case letters and digits, in parts joined by one - or _, at most 63 characters
services/api.yaml:1:1: only files that end in .yml are read
    hint: rename it to api.yml
services/broken.yml:1:1: image: is missing
services/broken.yml:1:1: unknown key "imag"
    hint: did you mean image?
services/broken.yml:2:11: replicas: must be a number from 1 to 1000, is "x"`
	err := s.Err()
	if !errors.Is(err, fault.ErrDefinition) {
		t.Fatalf("err = %v, want fault.ErrDefinition", err)
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

func TestLoadServices_MissingDirectoryIsEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	s, err := LoadServices(os.DirFS(dir), dir)
	if err != nil || len(s.Services)+len(s.Invalid) != 0 || s.Err() != nil {
		t.Errorf("set = %v, err = %v", s, err)
	}
	_, err = s.Get("shop")
	if !errors.Is(err, fault.ErrDefinition) || !strings.Contains(fault.Hint(err), dir) {
		t.Errorf("err = %v, hint = %s", err, fault.Hint(err))
	}
}

func TestLoadServices_ReadsNoPipesAndFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "original"), []byte("image: a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"linked.yml": "original", "dangling.yml": "nothing"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadServices(os.DirFS(dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"linked"}, s.IDs()); d != "" {
		t.Error(d)
	}
	for _, id := range []string{"pipe", "dangling"} {
		if _, err := s.Get(id); !errors.Is(err, fault.ErrDefinition) {
			t.Errorf("%s: err = %v", id, err)
		}
	}
}

func TestSet_Get(t *testing.T) {
	s := load(t, map[string]string{"shop.yml": "image: shop", "broken.yml": "image: 1", "api.yaml": "image: api"})
	if v, err := s.Get("shop"); err != nil || v.ID != "shop" || v.File != "services/shop.yml" {
		t.Errorf("%+v, %v", v, err)
	}
	for id, want := range map[string]string{
		"broken": `services/broken.yml:1:8: image: must be text, is "1"`,
		"api":    "services/api.yaml:1:1: only files that end in .yml are read",
		"shpo":   `unknown service "shpo"`,
		"../x":   `unknown service "../x"`,
	} {
		_, err := s.Get(id)
		if !errors.Is(err, fault.ErrDefinition) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", id, err, want)
		}
	}
	_, err := s.Get("shpo")
	if got, want := fault.Hint(err), "did you mean shop? Definitions are in services"; got != want {
		t.Errorf("hint = %s, want %s", got, want)
	}
	_, err = s.Get("payments")
	if got, want := fault.Hint(err), "define it in services/payments.yml"; got != want {
		t.Errorf("hint = %s, want %s", got, want)
	}
}

func TestSet_ErrFindsDependenciesThatCannotBeMet(t *testing.T) {
	s := load(t, map[string]string{
		"a.yml": "image: a\ndepends_on: [b]", "b.yml": "image: b\ndepends_on: [c]", "c.yml": "image: c\ndepends_on: [a]",
		"d.yml": "image: d\ndepends_on: [shpo, bad, a]", "shop.yml": "image: s", "bad.yml": "image: s\nreplicas: 0",
	})
	want := `services/a.yml:2:1: depends_on: b depends on a in turn
services/b.yml:2:1: depends_on: c depends on b in turn
services/bad.yml:2:11: replicas: must be a number from 1 to 1000, is "0"
services/c.yml:2:1: depends_on: a depends on c in turn
services/d.yml:2:1: depends_on: there is no service shpo
    hint: did you mean shop?`
	if d := cmp.Diff(want, s.Err().Error()); d != "" {
		t.Error(d)
	}
}

func TestSet_Conflicts(t *testing.T) {
	const tls = ", tls: {certificate: /c, key: /k}"
	for name, c := range map[string]struct{ a, b, want string }{
		"same name":            {"hosts: [x]", "hosts: [X]", "claims x/ at port 80 of all addresses, and so does"},
		"one of several":       {"hosts: [x, y]", "hosts: [z, y]", "claims y/ at port 80 of all addresses"},
		"no names":             {"path: /", "", "claims all other host names/ at port 80"},
		"slash at the end":     {"hosts: [x], path: /a", "hosts: [x], path: /a/", "claims x/a at port 80"},
		"wildcard twice":       {"hosts: ['*.x']", "hosts: ['*.x']", "claims *.x/ at"},
		"address and all":      {"hosts: [x], listen: '10.0.0.1:80'", "hosts: [y]", "listens at 10.0.0.1:80, which takes connections of"},
		"v6 and all":           {"hosts: [x], listen: '[::1]:80'", "hosts: [y]", "listens at [::1]:80, which"},
		"tls and plain":        {"hosts: [x], listen: 443", "hosts: [y]" + tls, "speaks plain HTTP at port 443, other than"},
		"tls and plain same":   {"hosts: [x], listen: 443", "hosts: [x]" + tls, "speaks plain HTTP at port 443, other than"},
		"grpc and plain":       {"hosts: [x], grpc: true", "hosts: [y]", "speaks gRPC without TLS at port 80"},
		"certificates":         {"hosts: [x], path: /a, tls: {certificate: /c, key: /k}", "hosts: [x], path: /b, tls: {certificate: /d, key: /k}", "has another certificate for x than"},
		"redirect and name":    {"hosts: [x], tls: {certificate: /c, key: /k, redirect: true}", "hosts: [x]", "claims x/ at port 80"},
		"redirect and grpc":    {"hosts: [x], tls: {certificate: /c, key: /k, redirect: true}", "hosts: [y], grpc: true", "speaks plain HTTP at port 80, other than"},
		"redirect, an address": {"hosts: [x], listen: '10.0.0.1:443', tls: {certificate: /c, key: /k, redirect: true}", "hosts: [y]", "listens at 10.0.0.1:80, which"},

		"names":                {"hosts: [x]", "hosts: [y]", ""},
		"name and none":        {"hosts: [x]", "", ""},
		"name and wildcard":    {"hosts: [a.x]", "hosts: ['*.x']", ""},
		"paths":                {"hosts: [x]", "hosts: [x], path: /api", ""},
		"ports":                {"hosts: [x]", "hosts: [x], listen: 81", ""},
		"addresses":            {"hosts: [x], listen: '10.0.0.1:80'", "hosts: [x], listen: '10.0.0.2:80'", ""},
		"tls at both":          {"hosts: [x]" + tls, "hosts: [y], grpc: true, tls: {certificate: /d, key: /e}", ""},
		"tls beside plain":     {"hosts: [x]" + tls, "hosts: [x]", ""},
		"one certificate":      {"hosts: [x], path: /a" + tls, "hosts: [x]" + tls, ""},
		"redirect beside name": {"hosts: [x], tls: {certificate: /c, key: /k, redirect: true}", "hosts: [y]", ""},
		"two redirects":        {"hosts: [x], path: /a, tls: {certificate: /c, key: /k, redirect: true}", "hosts: [x], path: /b, tls: {certificate: /c, key: /k, redirect: true}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := func(s string) string { return fmt.Sprintf("image: i\nhttp: {port: 1, %s}", s) }
			s := load(t, map[string]string{"a.yml": text(c.a), "b.yml": text(c.b), "broken.yml": text(c.a) + "\nreplicas: 0"})
			for _, pair := range [][2]string{{"a", "b"}, {"b", "a"}} {
				err := s.Conflicts(pair[0])
				if c.want == "" {
					if err != nil {
						t.Errorf("%s: %v", pair[0], err)
					}
					continue
				}
				// Both ways, and each message names both files.
				if !errors.Is(err, fault.ErrDefinition) || !strings.HasPrefix(err.Error(), "services/"+pair[0]+".yml:2:1: http: ") ||
					!strings.Contains(err.Error(), "services/"+pair[1]+".yml:2:1") {
					t.Errorf("%s: %v", pair[0], err)
				}
			}
			if err := s.Conflicts("a"); err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestSet_ConflictsOfPublishedPorts(t *testing.T) {
	publish := func(ports string) string {
		return "image: i\nupgrade: {order: stop-first}\nports: [" + ports + "]"
	}
	s := load(t, map[string]string{
		"a.yml":   publish(`"80:80", "10.0.0.1:53:53/udp"`),
		"b.yml":   publish(`"10.0.0.1:80:8080", "10.0.0.2:53:53/udp"`),
		"c.yml":   publish(`"80:80/udp"`),
		"web.yml": "image: i\nhttp: {port: 1}",
	})
	for id, want := range map[string]string{
		"a": `services/a.yml:3:1: ports: publishes port 80 of the host, where the proxy listens for services/web.yml:2:1
    hint: publish another port
services/a.yml:3:1: ports: publishes port 80/tcp of the host, and so does services/b.yml:3:1
    hint: publish another port`,
		"web": `services/web.yml:2:1: http: listens at port 80, which is published by services/a.yml:3:1
    hint: listen at another port
services/web.yml:2:1: http: listens at port 80, which is published by services/b.yml:3:1
    hint: listen at another port`,
	} {
		if d := cmp.Diff(want, fmt.Sprint(s.Conflicts(id))); d != "" {
			t.Errorf("%s: %s", id, d)
		}
	}
	if err := s.Conflicts("c"); err != nil {
		t.Error(err)
	}
	if err := s.Conflicts("none"); err != nil {
		t.Error(err)
	}
}

// A Set that is made by hand has no positions, and still says its conflicts.
func TestSet_ConflictsWithoutPositions(t *testing.T) {
	web := func(id string) Service {
		return Service{ID: id, File: id + ".yml", Policy: Policy{HTTP: &HTTP{Path: "/", Listen: Listen{Port: 80}}}}
	}
	s := Set{Services: map[string]Service{"a": web("a"), "b": web("b")}}
	if got, want := fmt.Sprint(s.Conflicts("b")), "b.yml:1:1: http: claims all other host names/ at port 80 of all addresses, and so does a.yml:1:1"; !strings.HasPrefix(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
}

func BenchmarkLoadServices(b *testing.B) {
	texts := map[string]string{}
	data := read(b, "testdata/valid/web.yml")
	for i := range 100 {
		texts[fmt.Sprintf("s%d.yml", i)] = strings.ReplaceAll(string(data), "example.com", fmt.Sprintf("s%d.example.com", i))
	}
	fsys := files(texts)
	for b.Loop() {
		s, err := LoadServices(fsys, "services")
		if err != nil {
			b.Fatal(err)
		}
		if s.Err() == nil {
			b.Fatal("depends_on db was not missed")
		}
	}
}
