package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"conductor/internal/fault"
)

func validFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/valid/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Beside each testdata/valid/NAME.yml is NAME.json, what it means.
func TestParseService_FillsInDefaultsAndForms(t *testing.T) {
	for _, file := range validFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := ParseService(file, "shop", read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(struct {
				Container Container
				Policy    Policy
			}{s.Container, s.Policy}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".yml") + ".json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(read(t, golden)), string(got)+"\n"); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			roundTrip(t, s)
		})
	}
}

// roundTrip checks that the goal file brings back the same service.
func roundTrip(t testing.TB, s Service) {
	t.Helper()
	for _, v := range []any{s.Container, s.Policy} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(b, back.Interface()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(v, back.Elem().Interface()) {
			t.Fatalf("%s\nbecame %+v\nand was %+v", b, back.Elem().Interface(), v)
		}
	}
}

func TestParseService_KeepsEnvironmentAsWritten(t *testing.T) {
	for _, written := range []string{"010", "1.10", "yes", "No", "on", "1_000", "0x10", "0o17", "0b1", "true", "TRUE",
		"1e3", ".inf", ".NaN", "-0", "+1", "2001-01-01", "2001-01-01T00:00:00Z", "12:30:45", "=", "<<", "~/x", "$HOME", "${A}", "$$", "a b", "é"} {
		for _, source := range []string{"  A: " + written, "  - A=" + written, "  A: '" + written + "'", "  A: !!str " + written} {
			s, err := ParseService("a.yml", "a", []byte("image: a\nenvironment:\n"+source))
			if err != nil {
				t.Errorf("%s: %v", source, err)
				continue
			}
			if got := s.Container.Environment["A"]; got != written {
				t.Errorf("%s: got %q, want %q", source, got, written)
			}
		}
	}
}

func TestParseService_KeepsAnyEnvironmentValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOfN(rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_]{0,8}`),
			rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 })), 0, 5).Draw(t, "environment")
		data, err := yaml.Dump(map[string]any{"image": "a", "environment": want})
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseService("a.yml", "a", data)
		if err != nil {
			t.Fatalf("%s\n%v", data, err)
		}
		if len(want) == 0 {
			want = nil
		}
		if d := cmp.Diff(want, s.Container.Environment); d != "" {
			t.Fatalf("%s\n%s", data, d)
		}
	})
}

func TestParseService_RefusesWhatIsTooLarge(t *testing.T) {
	_, err := ParseService("a.yml", "a", []byte("image: a\n"+strings.Repeat("#", maxFile)))
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("err = %v", err)
	}
}

// A merge that names two others, which name two others, and so on, would take
// for ever if each were looked at every time.
func TestParseService_SurvivesNestedMerges(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-a0: &a0 {A: b}\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&b, "x-a%d: &a%d {<<: [*a%d, *a%d]}\n", i, i, i-1, i-1)
	}
	b.WriteString("image: a\nenvironment: {<<: [*a59, *a58]}\n")
	s, err := ParseService("a.yml", "a", []byte(b.String()))
	if err != nil || s.Container.Environment["A"] != "b" {
		t.Errorf("environment = %v, err = %v", s.Container.Environment, err)
	}
}

func TestSplitWords_SplitsLikeAShell(t *testing.T) {
	for in, want := range map[string][]string{
		``:                     nil,
		`  a   b	c `:           {"a", "b", "c"},
		`a 'b c' "d e"`:        {"a", "b c", "d e"},
		`a''b "" ''`:           {"ab", "", ""},
		`a\ b \"c\' \\`:        {"a b", `"c'`, `\`},
		`'a\b' "a\b" "\"\\\$"`: {`a\b`, `a\b`, `"\$`},
		`$HOME ${A} $(b)`:      {"$HOME", "${A}", "$(b)"},
		"a\\\nb \"c\\\nd\"":    {"ab", "cd"},
		`'a;b' "c|d" e\&f`:     {"a;b", "c|d", "e&f"},
		`#a *.go ~ {a,b}`:      {"#a", "*.go", "~", "{a,b}"},
	} {
		got, bad, _ := splitWords(in)
		if bad != "" || !reflect.DeepEqual(got, want) {
			t.Errorf("splitWords(%q) = %q, %s, want %q", in, got, bad, want)
		}
	}
	for _, in := range []string{`'a`, `"a`, `a\`, `a | b`, `a;b`, `a&`, `a > b`, `a < b`} {
		if got, bad, hint := splitWords(in); bad == "" || hint == "" {
			t.Errorf("splitWords(%q) = %q, want a refusal", in, got)
		}
	}
}

func TestContainer_Reference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a1", 32)
	for _, c := range []struct{ image, revision, want string }{
		{"shop", "v1", "shop:v1"},
		{"localhost:5000/shop", "0123abc", "localhost:5000/shop:0123abc"},
		{"shop:{revision}-slim", "v1", "shop:v1-slim"},
		{"shop:v{revision}", "1", "shop:v1"},
		{"shop@{revision}", digest, "shop@" + digest},
		{"shop@{revision}", "v1", ""},
		{"shop", digest, ""},
		{"shop", "", ""},
		{"shop", "-rf", ""},
		{"shop", "a b", ""},
		{"shop", "a/b", ""},
		{"shop", "v1\n", ""},
		{"shop", "ü", ""},
		{"shop", strings.Repeat("a", 129), ""},
		{"shop:{revision}-slim", strings.Repeat("a", 128), ""},
		{"shop@{revision}", strings.ToUpper(digest), ""},
	} {
		got, err := Container{Image: c.image}.Reference(c.revision)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s, %s: %q, %v, want %q", c.image, c.revision, got, err, c.want)
		}
		if err != nil && (!errors.Is(err, fault.ErrUsage) || fault.Hint(err) == "") {
			t.Errorf("%s, %s: %v is not fault.ErrUsage with a hint", c.image, c.revision, err)
		}
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"shop": true, "gocardless_app_production": true, "a-1": true, strings.Repeat("a", 63): true,
		"": false, "Shop": false, "-a": false, "a-": false, "a--b": false, "a__b": false, "a.b": false, "a/b": false,
		"..": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if ValidID(id) != want {
			t.Errorf("ValidID(%q) = %t", id, !want)
		}
	}
}

func TestHTTP_URLs(t *testing.T) {
	for source, want := range map[string]string{
		"{port: 1}":                                                          "http://*/",
		"{port: 1, listen: 8080, path: /a}":                                  "http://*:8080/a",
		"{port: 1, listen: '127.0.0.1:80'}":                                  "http://127.0.0.1/",
		"{port: 1, listen: '[::1]:81', hosts: [a, '*.b']}":                   "http://a:81/ http://*.b:81/",
		"{port: 1, listen: '[::1]:81'}":                                      "http://[::1]:81/",
		"{port: 1, hosts: [a], tls: {certificate: /a, key: /b}}":             "https://a/",
		"{port: 1, hosts: [a], listen: 80, tls: {certificate: /a, key: /b}}": "https://a:80/",
	} {
		s, err := ParseService("a.yml", "a", []byte("image: a\nhttp: "+source))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Policy.HTTP.URLs(), " "); got != want {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
}

func FuzzParseService(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.yml", "testdata/invalid/*.yml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			f.Add(read(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseService("shop.yml", "shop", data)
		if err == nil {
			roundTrip(t, s)
			harmless(t, s)
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || !errors.Is(err, fault.ErrDefinition) || len(ps) == 0 {
			t.Fatalf("err = %v (%T)", err, err)
		}
		for _, p := range ps {
			if p.File != "shop.yml" || p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Fatalf("problem without its place: %+v", p)
			}
			if _, bad := dirty(p.Message + p.Hint); bad {
				t.Fatalf("control character in %q", p.Message+p.Hint)
			}
		}
	})
}

// harmless checks what may reach a label, a name or the proxy's configuration.
func harmless(t *testing.T, s Service) {
	t.Helper()
	c := s.Container
	reach := []string{c.Image, c.WorkingDir, c.User, c.Hostname, c.StopSignal, c.Logging.Driver, s.Policy.Health.Path}
	for _, list := range [][]string{c.Tmpfs, c.CapAdd, c.CapDrop, c.SecurityOpt, c.ExtraHosts, c.DNS, s.Policy.DependsOn} {
		reach = append(reach, list...)
	}
	for _, m := range []map[string]string{c.Labels, c.Logging.Options, s.Policy.Health.Headers} {
		for k, v := range m {
			reach = append(reach, k, v)
		}
	}
	for k := range c.Environment {
		reach = append(reach, k)
	}
	for k, v := range c.Secrets {
		reach = append(reach, k, v.File)
	}
	for _, v := range c.Volumes {
		reach = append(reach, v.Source, v.Target)
	}
	var proxy []string
	if h := s.Policy.HTTP; h != nil {
		proxy = append(h.Hosts, h.Path)
		if h.TLS != nil {
			proxy = append(proxy, h.TLS.Certificate, h.TLS.Key)
		}
	}
	for _, text := range append(reach, proxy...) {
		if r, bad := dirty(text); bad {
			t.Fatalf("%U in %q", r, text)
		}
	}
	for _, text := range proxy {
		if strings.ContainsAny(text, " ;{}\"'\\$#?&|<>()`^%") {
			t.Fatalf("%q could be configuration", text)
		}
	}
}
