package remote

import (
	"errors"
	"strings"
	"testing"

	"conductor/internal/fault"
)

func TestHost_Check(t *testing.T) {
	for _, good := range []string{"web1", "deploy@192.0.2.1", "deploy@web-1.example.com", "2001:db8::1", "deploy@2001:db8::1", "web_1", "DOMAIN.user@web1", "a@b@web1"} {
		if err := (Host{Name: "web1", SSH: good}).Check(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "-web1", "-oProxyCommand=id", "a@-web1", "-a@web1", "@web1", "a@", "web 1", "web1\n", "web1\x00", "\x7f", "web\u00a01", "web\u202e1", "web1;id", "web1|id", "web1&",
		"`id`", "$(id)", "${HOME}", "'web1'", `"web1"`, `web\1`, "web1>x", "web*", "web?", "!web1", "web1#", "~web1", "web1,web2", "ssh://web1", "\xff",
	} {
		err := Host{Name: "web1", SSH: bad}.Check()
		if !errors.Is(err, fault.ErrUsage) || fault.Hint(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestEnding(t *testing.T) {
	var b strings.Builder
	want := Ending{Code: 7, Error: "it's \x00 \"so\"\n", Hint: "wait"}
	if err := want.Write(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.String()
	for i := range whole {
		if _, n, more := FindEnding([]byte(whole[:i])); n != 0 || !more {
			t.Fatalf("%q: %d, %t", whole[:i], n, more)
		}
	}
	if e, n, more := FindEnding([]byte(whole + "rest")); e != want || n != len(whole) || more {
		t.Errorf("%+v, %d, %t", e, n, more)
	}
	for _, other := range []string{"\x00", "\x00conductor", "\x00conductor end ", "\x00conductor end {"} {
		if _, n, more := FindEnding([]byte(other)); n != 0 || !more {
			t.Errorf("%q: %d, %t", other, n, more)
		}
	}
	for _, other := range []string{"\x00x", "\x00conductor session", "\x00conductor end {}}\x00\n", "\x00conductor end " + strings.Repeat("x", maxEnding)} {
		if _, n, more := FindEnding([]byte(other)); n != 0 || more {
			t.Errorf("%.30q: %d, %t", other, n, more)
		}
	}
	// However long its words are, it can be found.
	b.Reset()
	if err := (Ending{Code: 1, Error: strings.Repeat("\x00", 1<<20), Hint: strings.Repeat("é\x01", 1<<20)}).Write(&b); err != nil {
		t.Fatal(err)
	}
	if e, n, _ := FindEnding([]byte(b.String())); n != b.Len() || e.Code != 1 {
		t.Errorf("%d bytes: %d", b.Len(), n)
	}
}

func TestLastLines(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "",
		"\n\n":                               "",
		"one\r\ntwo\t2  \n\n":                "one\ntwo 2",
		"\x1b[31mred\x1b[0m\x07":             "[31mred[0m",
		"\xff":                               "\uFFFD",
		strings.Repeat("a\n", 20) + "b":      strings.Repeat("a\n", 9) + "b",
		strings.Repeat("long", 1000) + "\nx": strings.Repeat("long", 125) + "…\nx",
	} {
		if got := LastLines(in); got != want {
			t.Errorf("%.40q: got %.80q", in, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"version":"1.0","do":"command","args":["version"]}`))
	f.Add([]byte(`{"protocol":2}`))
	f.Add([]byte("{\"do\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Decode(line, "1.0")
		if err != nil {
			if !errors.Is(err, fault.ErrUsage) && !errors.Is(err, fault.ErrHost) {
				t.Errorf("no class: %v", err)
			}
			return
		}
		b, err := r.Encode()
		if err != nil {
			if len(line) < MaxRequest/8 {
				t.Errorf("%q is taken, and cannot be sent: %v", line, err)
			}
			return
		}
		again, err := Decode(b[:len(b)-1], "1.0")
		if err != nil {
			t.Fatal(err)
		}
		if c, err := again.Encode(); err != nil || string(c) != string(b) {
			t.Errorf("%q became %q, %v", b, c, err)
		}
	})
}

func TestRequest_What(t *testing.T) {
	for want, r := range map[string]Request{
		"hold":            {Do: Hold, Args: []string{"service"}},
		"service upgrade": {Do: Command, Args: []string{"service", "upgrade", "--id", "shop"}},
		"run":             {Do: Exec, Args: []string{"run", "--id", "shop", "--", "bin/test"}},
		"command":         {Do: Command},
	} {
		if got := r.What(); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}
