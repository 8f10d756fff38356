package spec

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var plain = []cmp.Option{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func TestParseConfig_ReadsEveryKey(t *testing.T) {
	const file = "/etc/blue/conductor.yml"
	got, err := ParseConfig(file, read(t, "testdata/config/valid.yml"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		File: file, Namespace: "blue", ServicesDir: "/etc/blue/services", StateDir: "/var/lib/blue",
		Engine:  EngineConfig{Host: "unix:///var/run/docker.sock", Subnet: netip.MustParsePrefix("172.30.0.0/16")},
		CronDir: "/etc/blue/cron.d",
		Proxy: ProxyConfig{
			Kind: "nginx", Switch: "dynamic", ConfigDir: "/etc/blue/nginx/conf.d",
			Test: []string{"docker", "exec", "nginx", "nginx", "-t"}, Reload: []string{"nginx", "-s", "reload"},
			Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("fd00::/8")},
			Admin:   netip.MustParseAddrPort("127.0.0.1:9000"),
		},
		Notify: []NotifyTarget{
			{Name: "webhook", Webhook: &HiddenURL{URL: "https://hooks.example.com/conductor?token=abc"}},
			{Name: "webhook-2", Webhook: &HiddenURL{File: "/etc/blue/hook.url"}},
			{Name: "team", Slack: &HiddenURL{File: "/etc/blue/slack.url"}},
			{Name: "email", Email: &Email{
				To: []string{"ops@example.com", `"On call" <oncall@example.com>`}, From: "conductor@example.com",
				Server: "smtp.example.com:587", User: "conductor", PasswordFile: "/etc/blue/smtp.password", TLS: MailStartTLS,
			}},
			{Name: "webhook-3", Email: &Email{To: []string{"a@example.com"}, From: "b@example.com", Server: "[::1]:2525", TLS: MailPlain}},
			{Name: "email-2", Email: &Email{To: []string{"a@example.com"}, From: "b@example.com", Server: "mail:465", TLS: MailTLSOnly}},
		},
	}
	if d := cmp.Diff(want, got, plain...); d != "" {
		t.Error(d)
	}
}

func TestParseConfig_DefaultsAreThoseOfNoFile(t *testing.T) {
	want := DefaultConfig()
	want.File = "/etc/conductor/conductor.yml"
	for _, data := range []string{"", "# nothing\n", "{}", "x-a: 1"} {
		got, err := ParseConfig(want.File, []byte(data))
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if d := cmp.Diff(want, got, plain...); d != "" {
			t.Errorf("%q: %s", data, d)
		}
	}
}

func TestParseConfig_PathsAreAbsolute(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig("sub/conductor.yml", []byte("state_dir: ../state"))
	if err != nil {
		t.Fatal(err)
	}
	if c.ServicesDir != filepath.Join(here, "sub/services") || c.StateDir != filepath.Join(here, "state") {
		t.Errorf("%+v", c)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(read(f, "testdata/config/valid.yml"))
	f.Add(read(f, "testdata/config/invalid.yml"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("/etc/conductor.yml", data)
		if err != nil {
			return
		}
		for _, p := range []string{c.StateDir, c.Proxy.ConfigDir} {
			if !fileGrammar.MatchString(p) {
				t.Fatalf("%q could be configuration", p)
			}
		}
		if !filepath.IsAbs(c.ServicesDir) || !filepath.IsAbs(c.CronDir) || !c.Proxy.Admin.Addr().IsLoopback() || len(c.Proxy.Test) == 0 || len(c.Proxy.Reload) == 0 {
			t.Fatalf("%+v", c)
		}
	})
}
