//go:build e2e

package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// hostBound is how long a deploy may take to find out that a host does not
// answer: a connection that is there 15 s, an engine that restarts 20 s.
const hostBound = 45 * time.Second

// Hosts that cannot take part are all told at once, with what to do, before any
// host is touched; repaired, the same deploy goes on.
func TestDeploy_HostsThatCannot(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: halves")
	f.Host("web1").Fill(0)
	f.Host("web2").HangSSH()
	f.Host("web3").StopDocker()
	f.Host("web4").Cut()
	for _, gone := range []string{"web3", "web4"} {
		eventually(t, 20*time.Second, "the balancer sees that "+gone+" is gone", func() bool { return f.LB.Server(gone)["status"] == "DOWN" })
	}
	l.Stop() // what was on its way there
	l = loaded(t, f, 200)
	r := f.run(t, "deploy", "--id", "shop", "--revision", "v2").within(hostBound)
	r.want(9, "web1 cannot upgrade", "disk", "conductor doctor", // what it says on the host
		"web2", "sshd said nothing within 10 s", "see whether the host hangs",
		"web3", "engine", "docker",
		"web4", "is the host up")
	t.Logf("four hosts that cannot are told after %s", r.took.Round(time.Millisecond))
	if out := f.LB.Out(); len(out) > 0 {
		t.Errorf("%q were taken out of the balancer", out)
	}
	f.Each((*Host).Heal)
	r = f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	t.Logf("repaired, it takes %s", r.took.Round(time.Millisecond))
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// With max_failed the deploy goes on without hosts that cannot, and does not end
// well. They run another revision than those that serve: they leave the
// balancer, until the deploy is run again.
func TestDeploy_GoesOnWithoutHostsThatCannot(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: one-at-a-time, max_failed: 2")
	f.Host("web2").HangSSH()
	f.Host("web3").Fill(0)
	r := f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(8, "web2", "sshd said nothing", "web3 cannot upgrade").within(hostBound)
	t.Logf("without two hosts it takes %s", r.took.Round(time.Millisecond))
	wantRuns(t, f, "v2 UP", "v1 DRAIN", "v1 DRAIN", "v2 UP")
	f.Host("web2").Heal()
	f.Host("web3").Heal()
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// What goes wrong with two hosts of a wave in the middle of their upgrade stays
// theirs: they are given up, out of the balancer, and the others go on.
func TestDeploy_HostsThatFailInTheMiddle(t *testing.T) {
	f, l := deployed(t, 200)
	f.slow("slow1", "slow2")
	f.describe(t, "strategy: {percent: 50}, max_failed: 2")
	for _, test := range []struct {
		revision        string
		first, second   func(*Host)
		what            string
		code            int
		firsts, seconds []string // words that are told of each
	}{
		{"slow1", (*Host).Cut, (*Host).dead, "cut off, and its engine dead", 8, []string{"has not answered for 15 s", "see whether it is up"}, []string{"docker.sock"}},
		{"slow2", (*Host).brimful, (*Host).HangSSH, "its disk full, and its sshd hanging", 9, []string{"no space left"}, []string{"has not answered for 15 s", "see whether it is up"}},
	} {
		u := f.start(t, "deploy", "--id", "shop", "--revision", test.revision)
		u.when("web1", "created")
		test.first(f.Host("web1"))
		u.when("web2", "created")
		test.second(f.Host("web2"))
		r := u.wait().want(test.code).within(2 * hostBound) // the others are upgraded, too
		t.Logf("%s: %s", test.what, r.took.Round(time.Millisecond))
		u.failed("web1", test.firsts...)
		u.failed("web2", test.seconds...)
		if out := f.LB.Out(); !slices.Equal(out, []string{"web1", "web2"}) {
			t.Errorf("%q are out of the balancer", out)
		}
		for _, host := range []string{"web3", "web4"} {
			if s := f.LB.Server(host)["status"]; s != "UP" {
				t.Errorf("%s does not serve: %s", host, s)
			}
		}
		f.Host("web1").Heal()
		f.Host("web2").Heal()
		r = f.run(t, "deploy", "--id", "shop", "--revision", test.revision).want(0)
		t.Logf("repaired, it takes %s", r.took.Round(time.Millisecond))
		wantRuns(t, f, all(test.revision+" UP")...)
	}
	nothingFailed(t, l)
}

// brimful fills the disk to the last byte.
func (h *Host) brimful() { h.Fill(0) }

// dead has the engine end without a word to its containers, and stay so.
func (h *Host) dead() {
	h.KillDocker()
	h.StopDocker()
}

// failed fails the test unless the run has told the host's failure in the words.
func (u *underWay) failed(host string, words ...string) {
	u.t.Helper()
	var said []string
	for _, e := range u.events() {
		if e.Event == "failed" && e.Host == host {
			said = append(said, e.Detail)
		}
	}
	all := strings.Join(append(said, u.wait().result().Hint, u.wait().stderr), "\n")
	for _, w := range words {
		if len(said) == 0 || !strings.Contains(all, w) {
			u.t.Errorf("%q is not told of %s: %s", w, host, u.wait())
		}
	}
}

// Where no host may fail, the deploy stops when one of the first half does: the
// second half serves on. An engine that is killed comes back, and is waited for.
func TestDeploy_FirstHalfFailsInTheMiddle(t *testing.T) {
	f, l := deployed(t, 200)
	f.slow("slow1")
	f.describe(t, "strategy: halves")
	u := f.start(t, "deploy", "--id", "shop", "--revision", "slow1")
	u.when("web1", "created")
	f.Host("web1").KillDocker()
	u.when("web2", "created")
	f.Host("web2").Cut()
	r := u.wait().want(8, "web2").within(hostBound)
	t.Logf("given up after %s", r.took.Round(time.Millisecond))
	u.failed("web2", "has not answered for 15 s", "see whether it is up")
	if out := f.LB.Out(); !slices.Equal(out, []string{"web1", "web2"}) {
		t.Errorf("%q are out of the balancer", out)
	}
	if got := f.runs(t); got[0] != "slow1 DRAIN" || got[2] != "v1 UP" || got[3] != "v1 UP" {
		t.Errorf("the hosts run %q", got)
	}
	f.Host("web2").Heal()
	r = f.run(t, "deploy", "--id", "shop", "--revision", "slow1").want(0)
	t.Logf("repaired, it takes %s", r.took.Round(time.Millisecond))
	wantRuns(t, f, all("slow1 UP")...)
	nothingFailed(t, l)
}
