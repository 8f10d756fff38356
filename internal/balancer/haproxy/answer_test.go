package haproxy

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// recorded is what HAProxy 2.6.12 answered: web1 is checked and down, web3 in
// maint by the configuration, web4 drained, web5 has weight 0, web6 follows web3.
func recorded(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/answer.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParse_ReadsWhatHAProxyAnswered(t *testing.T) {
	a, err := parse(recorded(t), "shop")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]balancer.Server{
		"web1": {In: true, Says: "DOWN, L4CON: Connection refused"},
		"web2": {In: true, Up: true, Says: "no check"},
		"web3": {Away: true, Up: true, Says: "MAINT"},
		"web4": {Up: true, Says: "DRAIN"},
		"web5": {Up: true, Says: "no check, weight 0"},
		"web6": {Away: true, Up: true, Says: "MAINT (via shop/web3)"},
	}
	for name, w := range want {
		if got := a.servers[name]; got != w {
			t.Errorf("%s: %+v, want %+v", name, got, w)
		}
	}
	if len(a.servers) != len(want) || a.stopping {
		t.Errorf("answer %+v", a)
	}
}

func TestParse_TakesNoPartOfAnAnswer(t *testing.T) {
	text := recorded(t)
	for n := 0; n <= len(strings.TrimRight(text, "\n")); n += 3 {
		if a, err := parse(text[:n], "shop"); err == nil {
			t.Fatalf("cut off after %d of %d bytes it is taken for %+v", n, len(text), a)
		}
	}
}

func TestParse_SeesWhoIsBeingStopped(t *testing.T) {
	a, err := parse(strings.Replace(recorded(t), "\nStopping: 0\n", "\nStopping: 1\n", 1), "shop")
	if err != nil || !a.stopping {
		t.Errorf("answer %+v, %v", a, err)
	}
	if _, err := parse(strings.Replace(recorded(t), "\nNbproc: 1\n", "\nNbproc: 4\n", 1), "shop"); !errors.Is(err, fault.ErrHost) {
		t.Errorf("several processes: %v", err)
	}
}

func TestNew_RefusesNamesThatCouldSayMore(t *testing.T) {
	run := func(context.Context, string) (string, error) { t.Error("it was told"); return "", nil }
	for _, name := range []string{"", "web1;shutdown", "web1 state ready", "web1\n", "shop/web1", "web\\1", "wéb"} {
		if _, err := New(Config{Backend: name, Run: run}); err == nil {
			t.Errorf("the backend %q is taken", name)
		}
		if _, err := New(Config{Backend: "shop", Run: run, Hosts: []balancer.Host{{Name: "web1", At: "x" + name + ";"}}}); err == nil {
			t.Errorf("the server %q is taken", "x"+name+";")
		}
		if _, err := New(Config{Backend: "shop", Run: run, Hosts: []balancer.Host{{Name: name}}}); err == nil {
			t.Errorf("the server %q is taken", name)
		}
	}
}

func TestSet_TellsTheAdmittedFirst(t *testing.T) {
	text := recorded(t)
	var told string
	b, err := New(Config{Backend: "shop", Hosts: []balancer.Host{{Name: "a", At: "web4"}, {Name: "b", At: "web2"}, {Name: "c", At: "web5"}},
		Run: func(_ context.Context, lines string) (string, error) {
			if strings.HasPrefix(lines, "show") {
				return text, nil
			}
			told = lines
			return "No such server.\n\n", nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	err = b.Set(t.Context(), balancer.Change{Drain: []string{"b"}, Admit: []string{"a"}, Away: []string{"c"}})
	if want := "set server shop/web4 state ready\nset server shop/web2 state drain\nset server shop/web5 state maint"; told != want {
		t.Errorf("it was told\n%s\nwant\n%s", told, want)
	}
	if !errors.Is(err, balancer.ErrUnknown) {
		t.Errorf("set: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/answer.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("Permission denied\n\n")
	f.Add("# be_id srv_name\n\n# pxname\n\nName: \n\n")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parse(text, "shop")
		if err == nil && a.servers == nil {
			t.Error("neither an answer nor an error")
		}
	})
}
