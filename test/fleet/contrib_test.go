//go:build e2e

package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trigger has the hosts run a revision of shop, in its own way.
type trigger struct {
	name string
	to   func(f *Fleet, revision string) ran
}

var triggers = []trigger{
	{"deploy", func(f *Fleet, revision string) ran {
		return f.run(f.t, "deploy", "--id", "shop", "--revision", revision)
	}},
	{"capistrano", func(f *Fleet, revision string) ran { return f.cap("conductor:upgrade", "REVISION="+revision) }},
	{"ansible", func(f *Fleet, revision string) ran { return f.ansible("deploy.yml", "REVISION="+revision) }},
}

// cap runs a task of Capistrano.
func (f *Fleet) cap(task string, env ...string) ran {
	f.t.Helper()
	return f.capistrano("", task, env...)
}

// capistrano runs a task of Capistrano in a project that has the recipe, and
// settings.
func (f *Fleet) capistrano(settings, task string, env ...string) ran {
	f.t.Helper()
	project := filepath.Join(f.t.TempDir(), "project")
	for file, text := range map[string]string{
		"Capfile": "require \"capistrano/setup\"\nimport " + quoted(contrib(f.t, "capistrano/conductor.rake")) + "\ntask deploy: \"conductor:upgrade\"\n",
		"config/deploy.rb": "set :application, \"shop\"\nset :scm, nil\n" +
			"set :ssh_options, config: " + quoted(f.SSHConfig()) + ", verify_host_key: :always\n" + settings + "\n",
		"config/deploy/production.rb": "server \"web1\"\nserver \"web2\"\nserver \"web3\"\nserver \"web4\"\n",
	} {
		write(f.t, filepath.Join(project, file), text)
	}
	return f.do(project, env, "cap", "production", task)
}

// ansible runs a playbook that is beside the role.
func (f *Fleet) ansible(playbook string, words ...string) ran {
	f.t.Helper()
	dir := f.t.TempDir()
	inventory := filepath.Join(dir, "hosts")
	var hosts strings.Builder
	hosts.WriteString("[conductor]\n")
	for _, h := range f.Hosts() {
		hosts.WriteString(h.Name() + "\n")
	}
	write(f.t, inventory, hosts.String())
	env := []string{"ANSIBLE_CONFIG=" + contrib(f.t, "ansible/ansible.cfg"), "ANSIBLE_HOME=" + dir,
		"ANSIBLE_ROLES_PATH=" + contrib(f.t, "ansible/roles"), "ANSIBLE_SSH_ARGS=-F " + f.SSHConfig()}
	args := []string{"-i", inventory, "-e", "conductor_id=shop"}
	for _, w := range words {
		if strings.HasPrefix(w, "REVISION=") {
			env = append(env, w)
		} else {
			args = append(args, w)
		}
	}
	if !filepath.IsAbs(playbook) {
		playbook = contrib(f.t, filepath.Join("ansible", playbook))
	}
	return f.do(dir, env, "ansible-playbook", append(args, playbook)...)
}

// do runs another program at the desk than conductor.
func (f *Fleet) do(dir string, env []string, program string, args ...string) ran {
	f.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		f.t.Fatal(err)
	}
	return ran{f.t, append([]string{program}, args...), out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// contrib is where a file of contrib/ is.
func contrib(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../contrib", name))
	must(t, err)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// quoted is a string of Ruby, where it has nothing to interpolate.
func quoted(s string) string { return fmt.Sprintf("%q", s) }

// leaves is what an upgrade has left on a host, by whatever it was asked for: all
// but names, times and the person.
func (h *Host) leaves(t testing.TB) string {
	t.Helper()
	var status []struct {
		Revision, State, Image, Candidate string
		Replicas, Healthy                 int
		Instances                         []struct {
			Slot                           int
			Revision, State, Health, Route string
		}
	}
	must(t, json.Unmarshal([]byte(h.Exec("conductor", "--output", "json", "service", "status", "--id", "shop")), &status))
	var history []struct{ Verb, From, To, User, Outcome string }
	must(t, json.Unmarshal([]byte(h.Exec("conductor", "--output", "json", "service", "history", "--id", "shop", "--limit", "1")), &history))
	if len(history) != 1 || history[0].User == "" {
		t.Errorf("%s: the history does not say who: %+v", h.name, history)
	}
	history[0].User = ""
	return fmt.Sprintf("%+v %+v", status, history)
}

// The same upgrade by each trigger leaves the same, drops nothing, and done again
// it changes nothing.
func TestContrib_LeavesTheSame(t *testing.T) {
	f, l := deployed(t, 500)
	f.describe(t, "strategy: one-at-a-time")
	names := []string{"web1", "web2", "web3", "web4"}
	from, to := "v1", "v2"
	images := map[string]string{}
	for _, revision := range []string{from, to} {
		images[revision] = f.Host("web1").Exec("docker", "image", "inspect", "-f", "{{.ID}}", f.Repo()+":"+revision)
	}
	same := map[string]string{}
	for _, trigger := range triggers {
		r := trigger.to(f, to).want(0)
		t.Logf("%s: %s", trigger.name, r.took.Round(time.Millisecond))
		wantRuns(t, f, all(to+" UP")...)
		for _, h := range f.Hosts() {
			got := strings.NewReplacer(images[to], "its image", from, "FROM", to, "TO").Replace(h.leaves(t))
			if same[h.name] == "" {
				same[h.name] = got
			}
			if got != same[h.name] {
				t.Errorf("%s leaves on %s\n%s, and %s\n%s", trigger.name, h.name, got, triggers[0].name, same[h.name])
			}
		}
		from, to = to, from
	}
	// The last one has brought from.
	before := f.containers()
	f.cap("deploy", "REVISION="+from).want(0, from+", nothing to do")
	f.ansible("deploy.yml", "REVISION="+from).want(0).recap("changed=0", names...)
	f.ansible("deploy.yml", "REVISION="+to, "--check", "--limit", "web1").want(0, "create shop."+to).recap("changed=1", "web1")
	if now := f.containers(); now != before {
		t.Errorf("there were %s, and now %s", before, now)
	}
	// A rollback names its revision, and may be done again.
	f.cap("conductor:rollback", "REVISION="+to).want(0)
	f.ansible("rollback.yml", "REVISION="+to, "--limit", "web1").want(0).recap("changed=0", "web1")
	f.ansible("rollback.yml", "REVISION="+from, "--limit", "web1").want(0).recap("changed=1", "web1")
	f.cap("conductor:status").want(0, "web4", "running", "2/2 healthy")
	wantRuns(t, f, from+" UP", to+" UP", to+" UP", to+" UP")
	nothingFailed(t, l)
}

// recap fails the test unless Ansible's last lines have the word for each of the
// hosts.
func (r ran) recap(word string, hosts ...string) ran {
	r.t.Helper()
	_, recap, _ := strings.Cut(r.stdout, "PLAY RECAP")
	for _, h := range hosts {
		if !slices.ContainsFunc(strings.Split(recap, "\n"), func(line string) bool {
			return strings.HasPrefix(line, h+" ") && strings.Contains(line, word+" ")
		}) {
			r.t.Errorf("%s is not told of %s: %s", word, h, r)
		}
	}
	return r
}

// containers are those of shop, on all hosts.
func (f *Fleet) containers() (all string) {
	for _, h := range f.Hosts() {
		all += h.name + ":\n" + h.Exec("docker", "ps", "-aq", "--no-trunc", "--filter", "label=conductor.service=shop") + "\n"
	}
	return all
}

// A release that is not good ends at the first host: the cause is told, the
// others are not touched, and the exit code is that of doing it by hand.
func TestContrib_BadRevision(t *testing.T) {
	f, l := deployed(t, 200)
	f.Image("bad", "EXIT_AT_START=3")
	f.Each(func(h *Host) { h.Load(f.Repo() + ":bad") })
	told := []string{"did not become healthy", "exited 3", "its last log lines"}
	if _, err := f.Host("web4").SSH(f, "sudo conductor service upgrade --id shop --revision bad"); err == nil || !strings.Contains(err.Error(), "exit status 5") {
		t.Errorf("by hand: %v", err)
	}
	r := f.cap("deploy", "REVISION=bad").want(5, told...)
	if !strings.Contains(r.stderr, told[0]) || strings.Contains(r.stderr, "web2") {
		t.Errorf("%s", r)
	}
	f.ansible("deploy.yml", "REVISION=bad").want(2, append(told, "exit code 5", "web1")...)
	f.cap("deploy", "REVISION=nowhere").want(4, "cannot be had")
	f.ansible("deploy.yml", "REVISION=nowhere").want(2, "exit code 4", "cannot be had")
	wantRuns(t, f, all("v1 UP")...)
	for _, name := range []string{"web2", "web3"} {
		if out := f.Host(name).Exec("conductor", "service", "history", "--id", "shop"); strings.Contains(out, "bad") || strings.Contains(out, "nowhere") {
			t.Errorf("%s was touched:\n%s", name, out)
		}
	}
	nothingFailed(t, l)
}

// Nothing hostile gets to a shell, or is taken for a template: ids and revisions
// that can be none are refused here, a reason arrives as it is.
func TestContrib_Hostile(t *testing.T) {
	f := Up(t, size)
	canary := filepath.Join(t.TempDir(), "canary")
	f.cap("deploy", "REVISION=v1").want(0)
	before := f.Host("web1").leaves(t)
	for _, revision := range []string{"v2; touch " + canary, "$(touch " + canary + ")", "`touch " + canary + "`", "v2\ntouch " + canary, "--plan", "",
		"{{ lookup('pipe', 'touch " + canary + "') }}"} {
		f.cap("deploy", "REVISION="+revision).want(2, "conductor_revision cannot be")
		if strings.ContainsAny(revision, ";\n{") {
			f.ansible("deploy.yml", "REVISION="+revision).want(2, "conductor_revision")
		}
	}
	id := "shop; touch " + canary
	f.capistrano("set :conductor_service, "+quoted(id), "deploy", "REVISION=v2").want(2, "conductor_service cannot be")
	f.ansible("deploy.yml", "REVISION=v2", "-e", `{"conductor_id": "`+id+`"}`).want(2, "conductor_id cannot be")
	if now := f.Host("web1").leaves(t); now != before {
		t.Errorf("web1 was touched: %s, and was %s", now, before)
	}
	reason := "it's \"urgent\"; touch " + canary + " $(touch " + canary + ") `touch " + canary + "` --plan | & < > * ~ \\ !"
	f.capistrano("set :conductor_reason, "+strings.ReplaceAll(quoted(reason), "#", `\#`), "deploy", "REVISION=v2").want(0)
	f.ansible("deploy.yml", "REVISION=v1", "-e", `{"conductor_reason": `+quoted(reason)+`}`).want(0)
	for _, h := range append(f.Hosts(), nil) {
		if h == nil {
			if _, err := os.Stat(canary); err == nil {
				t.Error("a shell here has run what it should not have")
			}
			break
		}
		var history []struct{ Reason, To string }
		must(t, json.Unmarshal([]byte(h.Exec("conductor", "--output", "json", "service", "history", "--id", "shop", "--limit", "2")), &history))
		if len(history) != 2 || history[0].Reason != reason || history[1].Reason != reason {
			t.Errorf("%s has the reasons %+v, want %s", h.name, history, reason)
		}
		if out, err := h.Try("ls", canary); err == nil {
			t.Errorf("a shell of %s has run what it should not have: %s", h.name, out)
		}
	}
}

// Ansible writes the definitions, those alone that are valid, and the upgrade
// goes by them.
func TestContrib_AnsibleWritesDefinitions(t *testing.T) {
	f := Up(t, size)
	was, err := os.ReadFile(filepath.Join(f.Dir, "services", "shop.yml"))
	must(t, err)
	template := filepath.Join(t.TempDir(), "shop.yml.j2")
	write(t, template, strings.Replace(string(was), "replicas: 2", "replicas: {{ shop_replicas }}", 1))
	web1 := f.Host("web1")
	with := func(replicas string, more ...string) ran {
		return f.ansible("deploy.yml", append([]string{"REVISION=v1", "--limit", "web1", "-e", "conductor_definition=" + template, "-e", "shop_replicas=" + replicas}, more...)...)
	}
	with("3", "--check").want(0).recap("changed=2", "web1") // a plan by the definition that is there
	with("3").want(0).recap("changed=2", "web1")
	if got := web1.Exec("docker", "ps", "-q", "--filter", "label=conductor.service=shop"); len(strings.Fields(got)) != 3 {
		t.Errorf("web1 runs %q, want three containers", got)
	}
	with("3").want(0).recap("changed=0", "web1")
	with("three").want(2, "replicas: must be")
	if got := web1.Exec("grep", "replicas", "/etc/conductor/services/shop.yml"); got != "replicas: 3" {
		t.Errorf("web1 has %s", got)
	}
}
