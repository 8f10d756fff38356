//go:build e2e

package fleet

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// trap is a path that something hostile would make, here or on a host.
const trap = "/tmp/ct-fleet-trap"

// hostile are words that would do something in a shell, or as an option.
var hostile = []string{
	"$(touch " + trap + ")", "`touch " + trap + "`", "v1;touch " + trap, "v1|touch " + trap, "v1\ntouch " + trap,
	"-oProxyCommand=touch " + trap, "--", "' ; touch " + trap + " ; '", "\"; touch " + trap + " #", "v1 & touch " + trap, "../../" + trap, "\x00", "v1\x1b]0;x",
}

// trapped fails the test where something hostile was done.
func trapped(t *testing.T, f *Fleet) {
	t.Helper()
	if _, err := os.Lstat(trap); err == nil {
		t.Errorf("%s was made here", trap)
		os.Remove(trap)
	}
	for _, h := range append(f.Hosts(), f.LB.Host) {
		if _, err := h.Try("test", "!", "-e", trap); err != nil {
			t.Errorf("%s was made on %s", trap, h.Name())
			h.Exec("rm", "-f", trap)
		}
	}
}

// What reaches a host as a name, an id, a revision or a reason is that, and
// nothing else, whatever is in it.
func TestDeploy_HostileWords(t *testing.T) {
	f, l := deployed(t, 100)
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	for _, word := range hostile {
		f.fleetYML(t, "hosts: {web1: {ssh: "+quoted(word)+", roles: [web]}}\nservices: {shop: {on: [web]}}\n")
		f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "fleet.yml:1")
		f.fleetYML(t, "hosts: {"+quoted(word)+": {roles: [web]}}\nservices: {shop: {on: [web]}}\n")
		f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "fleet.yml:1")
		f.fleetYML(t, "hosts: {web1: {roles: [web]}}\nservices: {shop: {on: [web]}}\nbalancer: {kind: haproxy, on: "+quoted(word)+", backend: shop}\n")
		f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "fleet.yml:3")
		f.fleetYML(t, "hosts: {web1: {roles: [web], server: "+quoted(word)+"}}\nservices: {shop: {on: [web]}}\nbalancer: {kind: haproxy, on: lb1, backend: "+quoted(word)+"}\n")
		f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3) // of HAProxy's own it may be a name
	}
	trapped(t, f)

	f.describe(t, "strategy: all, max_failed: 1")
	for _, word := range hostile {
		if strings.Contains(word, "\x00") {
			continue // nothing can be given as an argument with it
		}
		f.run(t, "deploy", "--id="+word, "--revision", "v2").want(3, "the fleet has no service")
		f.run(t, "deploy", "--id", "shop", "--revision="+word).want(2, "web1", "cannot be an image's tag")
		f.run(t, "deploy", "--id", "shop", "--revision", "v2", "--hosts="+word).want(2)
	}
	f.run(t, "deploy", "--id", "shop", "--revision", "v2", "--reason", "two\nlines").want(2, "reason is no line of text")
	wantRuns(t, f, all("v1 UP")...)
	const reason = "it's \"quoted\" $(touch " + trap + ") `touch " + trap + "`; touch " + trap
	f.run(t, "deploy", "--id", "shop", "--revision", "v2", "--reason", reason).want(0)
	wantRuns(t, f, all("v2 UP")...)
	f.run(t, "fleet", "history", "--id", "shop").want(0, reason)
	trapped(t, f)
	nothingFailed(t, l)
}

func (f *Fleet) fleetYML(t testing.TB, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(f.Dir, "fleet.yml"), []byte(text), 0o644))
}

// What a definition has in its environment arrives in the containers as it is.
func TestDeploy_HostileEnvironment(t *testing.T) {
	f, l := deployed(t, 100)
	file := filepath.Join(f.Dir, "services", "shop.yml")
	was, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, was, 0o644)) })
	env := map[string]string{}
	for n, word := range hostile {
		if !strings.ContainsAny(word, "\x00\x1b") { // which no YAML has
			env["WORD_"+strconv.Itoa(n)] = word
		}
	}
	env["LINES"], env["QUOTES"], env["EMPTY"], env["UTF"] = "one\ntwo\n\n  three\t", `it's "quoted" \ and \\ $HOME ${X} %n`, "", "ü ☃ \u202e"
	text, err := json.Marshal(env)
	must(t, err)
	must(t, os.WriteFile(file, []byte(string(was)+"environment: "+string(text)+"\n"), 0o644))
	f.describe(t, "strategy: all", "definitions: services")
	f.run(t, "sync").want(0, "web4: 1 definition sent")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	for _, h := range f.Hosts() {
		for _, c := range strings.Fields(h.Exec("docker", "ps", "-q", "--filter", "label=conductor.service=shop")) {
			var has []string
			must(t, json.Unmarshal([]byte(h.Exec("docker", "inspect", "-f", "{{json .Config.Env}}", c)), &has))
			for k, v := range env {
				if !slices.Contains(has, k+"="+v) {
					t.Errorf("%s: %s is not %q there: %q", h.Name(), k, v, has)
				}
			}
		}
	}
	wantRuns(t, f, all("v2 UP")...)
	trapped(t, f)
	nothingFailed(t, l)
}

// A host whose key is not known, or another than it was, is not spoken to, and
// it is told what to do.
func TestDeploy_HostKeys(t *testing.T) {
	f, l := deployed(t, 100)
	known, err := os.ReadFile(filepath.Join(f.Dir, "known_hosts"))
	must(t, err)
	web2, web3 := f.Host("web2"), f.Host("web3")
	unknown := strings.ReplaceAll(string(known), "web2,"+web2.IP()+" ", "other ")
	changed := strings.ReplaceAll(unknown, "web3,"+web3.IP()+" ", "web2,"+web2.IP()+" ")
	for _, test := range []struct {
		known string
		says  []string
	}{
		{unknown, []string{"is not known here", "log in once by hand and compare the fingerprint", "ssh web2"}},
		{changed, []string{"its host key is not the one that is known", "another machine answers, or it was set up anew", "ssh-keygen -R"}},
	} {
		file := filepath.Join(t.TempDir(), "known_hosts")
		must(t, os.WriteFile(file, []byte(test.known), 0o600))
		f.describe(t, "strategy: all", fmt.Sprintf("ssh: [ssh, -o, UserKnownHostsFile=%s]", file))
		f.run(t, "deploy", "--id", "shop", "--revision", "v2", "--hosts", "web1,web2").want(8, append(test.says, "web2")...)
		if now, err := os.ReadFile(file); err != nil || string(now) != test.known {
			t.Errorf("what is known of hosts was changed: %v", err)
		}
	}
	wantRuns(t, f, all("v1 UP")...)
	nothingFailed(t, l)
}

// A secret is in the container alone: in no argument of any process here or on a
// host, in no log, label or file of conductor's, and in nothing that it says.
func TestDeploy_KeepsSecrets(t *testing.T) {
	f, l := deployed(t, 100)
	secret := "s3cret-" + rand.Text()
	file := filepath.Join(f.Dir, "services", "shop.yml")
	was, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, was, 0o644)) })
	must(t, os.WriteFile(file, []byte(string(was)+"secrets:\n  API_KEY: {file: /root/api-key}\n  FILE_KEY: {command: [cat, /root/api-key], as: file}\n"), 0o644))
	f.Each(func(h *Host) {
		h.Write("/root/api-key", secret+"\n")
		t.Cleanup(func() { h.Exec("rm", "-f", "/root/api-key") })
	})
	f.describe(t, "strategy: halves, test: [migrate], migrate: [migrate]", "definitions: services")
	f.run(t, "sync").want(0)

	watch := watchArguments(secret)
	u := f.start(t, "deploy", "--id", "shop", "--revision", "v2", "--reason", "a secret")
	r := u.wait()
	looks, sessions, seen := watch()
	r.want(0)
	t.Logf("arguments of all processes were looked at %d times in %s; %d sessions were seen", looks, r.took.Round(time.Millisecond), sessions)
	if len(seen) > 0 {
		t.Errorf("the secret was an argument of %q", seen)
	}
	if sessions < size || looks < 20 {
		t.Errorf("%d sessions were seen in %d looks: this shows nothing", sessions, looks)
	}
	said := []string{r.String(), f.run(t, "fleet", "history", "--id", "shop").stdout, f.run(t, "--output", "json", "fleet", "status").stdout, f.run(t, "deploy", "--id", "shop", "--revision", "v1", "--plan").stdout}
	for n, text := range said {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is told: %d %s", n, text)
		}
	}
	for _, h := range f.Hosts() {
		c := strings.Fields(h.Exec("docker", "ps", "-q", "--filter", "label=conductor.service=shop"))[0]
		if got := h.Exec("docker", "inspect", "-f", "{{json .Config.Env}}", c); !strings.Contains(got, "API_KEY="+secret) {
			t.Errorf("%s: the container does not have its secret: %s", h.Name(), got)
		}
		if got := h.Exec("docker", "inspect", "-f", "{{json .Config.Labels}} {{.Name}} {{.Args}}", c); strings.Contains(got, secret) {
			t.Errorf("%s: the secret is in a label: %s", h.Name(), got)
		}
		for what, command := range map[string]string{
			"its files":   "grep -rlF \"$0\" /var/lib/conductor /etc/conductor /etc/nginx /var/log || true",
			"its journal": "journalctl -o json --no-pager | grep -F \"$0\" || true",
			"its history": "conductor --output json service history --id shop | grep -F \"$0\" || true",
		} {
			if got := h.Exec("sh", "-c", command, secret); got != "" {
				t.Errorf("%s: the secret is in %s: %s", h.Name(), what, got)
			}
		}
	}
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// watchArguments looks at the arguments of all processes of this machine and of
// its hosts, whose processes this kernel shows, until it is told to stop.
func watchArguments(secret string) (stop func() (looks, sessions int, seen []string)) {
	over := make(chan struct{})
	var looks int
	var seen []string
	sessions := map[string]bool{}
	var watching sync.WaitGroup
	watching.Go(func() {
		for ; ; looks++ {
			select {
			case <-over:
				return
			default:
			}
			entries, _ := os.ReadDir("/proc")
			for _, e := range entries {
				if e.Name()[0] < '0' || e.Name()[0] > '9' {
					continue
				}
				args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
				if err != nil {
					continue // it has ended
				}
				if bytes.Contains(args, []byte(secret)) {
					seen = append(seen, string(args))
				}
				if bytes.HasSuffix(args, []byte("conductor\x00session\x00")) {
					sessions[e.Name()] = true
				}
			}
		}
	})
	return func() (int, int, []string) {
		close(over)
		watching.Wait()
		return looks, len(sessions), seen
	}
}
