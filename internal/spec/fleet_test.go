package spec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/fault"
)

func fleetFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/fleet/valid*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	return files
}

func parseFleet(t testing.TB, text string) Fleet {
	t.Helper()
	f, err := ParseFleet("/srv/fleet.yml", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return f
}

func TestParseFleet_ReadsEveryKey(t *testing.T) {
	const file = "/srv/shop/fleet.yml"
	got, err := ParseFleet(file, read(t, "testdata/fleet/valid.yml"))
	if err != nil {
		t.Fatal(err)
	}
	service := func(id string, on []string, s Strategy) FleetService {
		return FleetService{
			ID: id, On: on, Strategy: s, DrainTimeout: Duration(30 * time.Second),
			TestTimeout: Duration(30 * time.Minute), MigrateTimeout: Duration(time.Hour),
		}
	}
	want := Fleet{
		File: file,
		Hosts: []FleetHost{
			{Name: "web2", SSH: "deploy@192.0.2.2", Port: 2222, Roles: []string{"web", "public"}, Address: "10.0.0.2:8080", Server: "WEB-2"},
			{Name: "web1", SSH: "deploy@fd00::1", Roles: []string{"web", "public"}, Address: "[fd00::1]", Server: "web1"},
			{Name: "jobs1", SSH: "jobs1", Roles: []string{"jobs"}, Address: "jobs1", Server: "jobs1", Sync: true},
			{Name: "lb1", SSH: "ops@corp.example@lb1.example.com", Address: "lb1.example.com", Server: "lb1", Sync: true},
		},
		Services: []FleetService{
			{
				ID: "shop_production", On: []string{"web"}, Strategy: Strategy{Kind: StrategyHalves},
				Test: []string{"bin/test"}, Migrate: []string{"bin/migrate", "--all"}, MaxFailed: 1, Ship: true,
				DrainTimeout: Duration(time.Minute), TestTimeout: Duration(10 * time.Minute), MigrateTimeout: Duration(2 * time.Hour),
			},
			service("shop_workers", []string{"jobs"}, Strategy{Kind: StrategyOneAtATime}),
			service("all-at-once", []string{"jobs", "web2"}, Strategy{Kind: StrategyAll}),
			service("quarter", []string{"public"}, Strategy{Kind: StrategyPercent, Percent: 25}),
			service("canary", []string{"public"}, Strategy{Kind: StrategyFirst, First: "web1", Confirm: true}),
			service("canary-pause", []string{"web"}, Strategy{Kind: StrategyFirst, First: "web2", Percent: 50, Pause: Duration(5 * time.Minute)}),
			service("canary-confirm", []string{"web1", "jobs"}, Strategy{Kind: StrategyFirst, First: "jobs1", Confirm: true}),
			service("canary-none", []string{"web"}, Strategy{Kind: StrategyFirst, First: "web1"}),
		},
		Balancer: Balancer{Kind: BalancerHAProxy, On: "lb1", Backend: "shop:http", Socket: "/run/haproxy/shop.sock"},
		Targets: []FleetTarget{
			{Name: "legacy", Command: []string{"cap", "production", "deploy"}, Timeout: Duration(30 * time.Minute)},
			{
				Name: "search", Command: []string{"ansible-playbook", "search site.yml", "$HOME; rm"},
				Timeout: Duration(5 * time.Minute), Services: []string{"shop_production"},
			},
		},
		Hooks: map[HookPoint]Hook{
			BeforeDeploy: {Command: []string{"bin/check", "a b"}, Timeout: Duration(5 * time.Minute)},
			BeforeHost:   {Command: []string{"bin/silence"}, Timeout: Duration(10 * time.Second)},
			AfterHost:    {Command: []string{"bin/unsilence"}, Timeout: Duration(5 * time.Minute)},
			AfterDeploy:  {Command: []string{"bin/tell", "010"}, Timeout: Duration(5 * time.Minute)},
			OnFailure:    {Command: []string{"bin/page"}, Timeout: Duration(5 * time.Minute)},
		},
		Definitions: "/srv/shop/services",
		Notify:      []NotifyTarget{{Name: "slack", Slack: &HiddenURL{File: "/srv/shop/slack.url"}}},
		SSH:         []string{"ssh", "-F", "ssh_config"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseFleet_SamplesAreValid(t *testing.T) {
	for _, file := range fleetFiles(t) {
		f, err := ParseFleet(file, read(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, s := range f.Services {
			if len(f.HostsOf(s.ID)) == 0 {
				t.Errorf("%s: %s runs nowhere", file, s.ID)
			}
		}
	}
}

func TestParseFleet_Balancers(t *testing.T) {
	commands := Balancer{Kind: BalancerCommand, Drain: []string{"bin/out"}, Admit: []string{"bin/in"}}
	for text, want := range map[string]Balancer{
		"":                       {Kind: BalancerNone},
		"balancer: none":         {Kind: BalancerNone},
		"balancer: {kind: none}": {Kind: BalancerNone},
		"balancer: {kind: haproxy, on: lb, backend: b}": {Kind: BalancerHAProxy, On: "lb", Backend: "b", Socket: "/run/haproxy/admin.sock"},
		"balancer: {kind: nginx, on: root@192.0.2.9, backend: b, file: /etc/nginx/b.conf}": {
			Kind: BalancerNginx, On: "root@192.0.2.9", Backend: "b", File: "/etc/nginx/b.conf"},
		"balancer: {kind: command, drain: [bin/out], admit: [bin/in]}":            commands,
		"balancer: {command: {drain: [bin/out], admit: [bin/in]}}":                commands,
		"balancer: {kind: command, command: {drain: [bin/out], admit: [bin/in]}}": commands,
	} {
		got := parseFleet(t, "hosts: {web1: {}}\n"+text).Balancer
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestParseFleet_PathsAreAbsolute(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFleet("sub/fleet.yml", []byte("hosts: {a: {}}\ndefinitions: ../services"))
	if err != nil || f.Definitions != filepath.Join(here, "services") {
		t.Errorf("%+v %v", f, err)
	}
}

func called(hosts []FleetHost) string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

func TestFleet_FindsHosts(t *testing.T) {
	f := parseFleet(t, string(read(t, "testdata/fleet/valid.yml")))
	for id, want := range map[string]string{
		"shop_production": "web2 web1", // in the file's order
		"all-at-once":     "web2 jobs1",
		"canary-confirm":  "web1 jobs1",
		"nothing":         "",
	} {
		if got := called(f.HostsOf(id)); got != want {
			t.Errorf("HostsOf(%s) = %q, want %q", id, got, want)
		}
	}
	if h, ok := f.Host("web1"); !ok || h.SSH != "deploy@fd00::1" {
		t.Errorf("Host(web1) = %+v %t", h, ok)
	}
	if _, ok := f.Host("web"); ok {
		t.Error("a role was taken for a host")
	}
	hosts, err := f.HostsNamed("lb1", "public", "web1")
	if got := called(hosts); err != nil || got != "web2 web1 lb1" {
		t.Errorf("HostsNamed = %q %v", got, err)
	}
	for word, hint := range map[string]string{"wbe1": "did you mean web1?", "nowhere": "there are jobs, jobs1, lb1, public, web, web1, web2"} {
		_, err := f.HostsNamed("web1", word)
		if !errors.Is(err, fault.ErrUsage) || fault.Hint(err) != hint || !strings.Contains(err.Error(), word) {
			t.Errorf("HostsNamed(%s): %v, hint %q", word, err, fault.Hint(err))
		}
	}
}

func TestFleet_FindsServicesAndTargets(t *testing.T) {
	f := parseFleet(t, string(read(t, "testdata/fleet/valid.yml")))
	if s, err := f.Service("quarter"); err != nil || s.Strategy.Percent != 25 {
		t.Errorf("%+v %v", s, err)
	}
	for id, hint := range map[string]string{"shop-production": "did you mean shop_production?", "x": "say in /srv/fleet.yml where it runs: services: {x: {on: [ROLE]}}"} {
		_, err := f.Service(id)
		if !errors.Is(err, fault.ErrDefinition) || fault.Hint(err) != hint {
			t.Errorf("Service(%s): %v, hint %q", id, err, fault.Hint(err))
		}
	}
	for id, want := range map[string]int{"shop_production": 2, "shop_workers": 1} {
		if got := f.TargetsOf(id); len(got) != want || got[0].Name != "legacy" {
			t.Errorf("TargetsOf(%s) = %+v", id, got)
		}
	}
}

func TestFleet_BalancerHost(t *testing.T) {
	const hosts = "hosts: {lb1: {ssh: root@192.0.2.9, port: 2222}}\n"
	for text, want := range map[string]FleetHost{
		"balancer: {kind: haproxy, on: lb1, backend: b}":          {Name: "lb1", SSH: "root@192.0.2.9", Port: 2222, Address: "192.0.2.9", Server: "lb1", Sync: true},
		"balancer: {kind: haproxy, on: ops@lb2.corp, backend: b}": {Name: "ops@lb2.corp", SSH: "ops@lb2.corp"},
	} {
		got, ok := parseFleet(t, hosts+text).BalancerHost()
		if d := cmp.Diff(want, got); d != "" || !ok {
			t.Errorf("%s: %s", text, d)
		}
	}
	for _, text := range []string{"", "balancer: {command: {drain: [a], admit: [b]}}"} {
		if h, ok := parseFleet(t, hosts+text).BalancerHost(); ok {
			t.Errorf("%q: %+v", text, h)
		}
	}
}

func TestStrategy_Width(t *testing.T) {
	for _, c := range []struct {
		s       Strategy
		n, want int
	}{
		{Strategy{Kind: StrategyOneAtATime}, 4, 1},
		{Strategy{Kind: StrategyAll}, 4, 4},
		{Strategy{Kind: StrategyAll}, 0, 1},
		{Strategy{Kind: StrategyPercent, Percent: 25}, 4, 1},
		{Strategy{Kind: StrategyPercent, Percent: 25}, 20, 5},
		{Strategy{Kind: StrategyPercent, Percent: 25}, 11, 2},
		{Strategy{Kind: StrategyPercent, Percent: 1}, 20, 1},
		{Strategy{Kind: StrategyPercent, Percent: 100}, 3, 3},
		{Strategy{Kind: StrategyFirst}, 3, 1},
		{Strategy{Kind: StrategyFirst, Percent: 50}, 4, 2},
	} {
		if got := c.s.Width(c.n); got != c.want {
			t.Errorf("%+v: %d of %d, want %d", c.s, got, c.n, c.want)
		}
	}
}

func TestValidDestination(t *testing.T) {
	for _, s := range []string{"web1", "deploy@192.0.2.1", "web1.example.com", "a_b", "_x", "Web1", "user@corp@host", "first.last@h", "a+b@h", "::1", "root@2001:db8::1", "1"} {
		if !ValidDestination(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", "-", "-v", "-oProxyCommand=x", "a@-v", "-a@b", "@", "@a", "a@", "a b", "a\tb", "a\nb", "a\x00", "a;b", "a|b", "a&b", "a`b`", "$(a)", "$a",
		"a'b", `a"b`, `a\b`, "a>b", "a<b", "a*", "a?", "a{b}", "a(b)", "a#b", "a!b", "a/b", "a%h", "%h", "~a", "a=b", "a,b", "ssh://a", "a:22", "[::1]", "fe80::1%eth0", "fe80::1%-x;y", "é", "a\u202eb", "a.", "a-",
		strings.Repeat("a", 256)} {
		if ValidDestination(s) {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzParseFleet(f *testing.F) {
	for _, file := range append(fleetFiles(f), "testdata/fleet/invalid.yml", "testdata/fleet/invalid_hostile.yml") {
		f.Add(read(f, file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fleet, err := ParseFleet("/srv/fleet.yml", data)
		if err != nil {
			if ps, ok := errors.AsType[Problems](err); !ok || len(ps) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		ids := map[string]bool{}
		for _, h := range fleet.Hosts {
			if !ValidID(h.Name) || ids[h.Name] || !ValidDestination(h.SSH) || strings.HasPrefix(h.SSH, "-") || strings.ContainsAny(h.SSH, " \t\r\n;'\"$`\\|&<>") {
				t.Fatalf("host %+v", h)
			}
			if !haproxyGrammar.MatchString(h.Server) || !serverGrammar.MatchString(h.Address) {
				t.Fatalf("host %+v", h)
			}
			ids[h.Name] = true
		}
		for _, s := range fleet.Services {
			hosts := fleet.HostsOf(s.ID)
			if !ValidID(s.ID) || len(hosts) == 0 || s.MaxFailed > 0 && s.MaxFailed >= len(hosts) || s.TestTimeout <= 0 || s.MigrateTimeout <= 0 {
				t.Fatalf("service %+v", s)
			}
			if w := s.Strategy.Width(len(hosts)); w < 1 || w > len(hosts) || s.Strategy.Kind == "" {
				t.Fatalf("service %+v: %d at a time", s, w)
			}
			if first := s.Strategy.First; (first != "") != (s.Strategy.Kind == StrategyFirst) || first != "" && !strings.Contains(" "+called(hosts)+" ", " "+first+" ") {
				t.Fatalf("service %+v", s)
			}
		}
		commands := [][]string{}
		for _, x := range fleet.Targets {
			commands = append(commands, x.Command)
		}
		for _, h := range fleet.Hooks {
			commands = append(commands, h.Command)
		}
		switch b := fleet.Balancer; b.Kind {
		case BalancerHAProxy, BalancerNginx:
			h, ok := fleet.BalancerHost()
			if !ok || !ValidDestination(h.SSH) || !haproxyGrammar.MatchString(b.Backend) || !fileGrammar.MatchString(b.Socket+b.File) || (b.Socket == "") == (b.File == "") {
				t.Fatalf("balancer %+v", b)
			}
		case BalancerCommand:
			commands = append(commands, b.Drain, b.Admit)
		case BalancerNone:
		default:
			t.Fatalf("balancer %+v", b)
		}
		for _, c := range commands {
			if len(c) == 0 || c[0] == "" || strings.ContainsRune(strings.Join(c, ""), 0) {
				t.Fatalf("command %q", c)
			}
		}
		if fleet.Definitions != "" && !filepath.IsAbs(fleet.Definitions) {
			t.Fatal(fleet.Definitions)
		}
	})
}
