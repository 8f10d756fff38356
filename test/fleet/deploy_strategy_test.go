//go:build e2e

package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// state is all of the fleet that a deploy might change.
func (f *Fleet) state() string {
	f.t.Helper()
	var b strings.Builder
	for _, h := range f.Hosts() {
		b.WriteString(h.Exec("sh", "-euc", `
			docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort
			docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort
			cd /var/lib/conductor
			find . -type f ! -name 'history.db*' ! -path './locks/*' -exec sha256sum {} + | sort`) + "\n")
	}
	for line := range strings.Lines(f.LB.Ask("show servers state shop")) {
		if field := strings.Fields(line); len(field) > 6 {
			fmt.Fprintln(&b, field[3], field[5], field[6])
		}
	}
	return b.String()
}

// A plan changes nothing, and is what a deploy does then, host by host.
func TestDeploy_PlanIsWhatHappens(t *testing.T) {
	f, l := deployed(t, 200)
	does := map[string]string{"image": "shipped", "test": "tested", "migrate": "migrated", "drain": "withdrawn", "upgrade": "upgraded", "verify": "verified", "admit": "admitted", "swap": "admitted"}
	for n, strategy := range []string{"halves", "{first: web3}"} {
		revision := fmt.Sprintf("planned%d", n)
		f.Image(revision)
		f.describe(t, "image: ship, test: [/app, migrate], migrate: [/app, migrate], strategy: "+strategy)
		before := f.state()
		var plan struct {
			Steps []struct {
				Do         string
				Hosts, Out []string
			}
		}
		must(t, json.Unmarshal([]byte(f.run(t, "--output", "json", "deploy", "--id", "shop", "--revision", revision, "--plan").want(0).stdout), &plan))
		if after := f.state(); after != before {
			t.Errorf("%s: the plan changed\n%s\ninto\n%s", strategy, before, after)
		}
		want := map[string][]string{}
		for _, s := range plan.Steps {
			if s.Do == "confirm" {
				continue // nobody is asked
			}
			for _, h := range s.Hosts {
				want[h] = append(want[h], does[s.Do])
			}
			for _, h := range s.Out {
				want[h] = append(want[h], "withdrawn")
			}
		}
		u := f.start(t, "deploy", "--id", "shop", "--revision", revision, "--yes")
		r := u.wait().want(0)
		got := map[string][]string{}
		for _, e := range u.events() {
			for _, name := range does {
				if e.Event == name {
					got[e.Host] = append(got[e.Host], name)
					break
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: planned was\n%v\nand done\n%v\n%s", strategy, want, got, r)
		}
		wantRuns(t, f, all(revision+" UP")...)
	}
	nothingFailed(t, l)
}

// So many percent of the hosts are out at once, and no more.
func TestDeploy_Percent(t *testing.T) {
	f, l := deployed(t, 200)
	for _, test := range []struct {
		percent, width int
		revision       string
	}{{25, 1, "v2"}, {50, 2, "v1"}} {
		f.describe(t, fmt.Sprintf("strategy: {percent: %d}", test.percent))
		u := f.start(t, "deploy", "--id", "shop", "--revision", test.revision)
		most := 0
		for running := true; running; {
			select {
			case <-u.ended:
				running = false
			default:
			}
			most = max(most, len(f.LB.Out()))
		}
		u.wait().want(0)
		if most != test.width {
			t.Errorf("%d percent: %d hosts were out at once, want %d", test.percent, most, test.width)
		}
		wantRuns(t, f, all(test.revision+" UP")...)
	}
	nothingFailed(t, l)
}

// After the first host somebody is asked, at a terminal; or is not, with --yes.
func TestDeploy_First(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: {first: web3}")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(2, "there is no terminal to ask at", "--yes", "pause: 10m")
	wantRuns(t, f, all("v1 UP")...)
	f.startAt(t, typing(t, "n\n"), "deploy", "--id", "shop", "--revision", "v2").wait().want(130, "web3 runs v2", "not confirmed")
	wantRuns(t, f, "v1 UP", "v1 UP", "v2 UP", "v1 UP")
	f.startAt(t, typing(t, "y\n"), "deploy", "--id", "shop", "--revision", "v2").wait().want(0, "Go on with the others?")
	wantRuns(t, f, all("v2 UP")...)
	u := f.start(t, "deploy", "--id", "shop", "--revision", "v1", "--yes")
	u.wait().want(0)
	events := u.events()
	at := func(event, host string) int {
		return slices.IndexFunc(events, func(e told) bool { return e.Event == event && e.Host == host })
	}
	for _, other := range []string{"web1", "web2", "web4"} {
		if at("admitted", "web3") < 0 || at("admitted", "web3") > at("withdrawn", other) {
			t.Errorf("%s was not after web3: %v", other, events)
		}
	}
	wantRuns(t, f, all("v1 UP")...)
	nothingFailed(t, l)
}

// typing is a terminal at which somebody types.
func typing(t *testing.T, types string) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { slave.Close() })
	_, err = master.WriteString(types)
	must(t, err)
	return slave
}

// A host that fails takes back those that were done, where that is asked for.
func TestDeploy_RollsBack(t *testing.T) {
	f, l := deployed(t, 200)
	f.Image("mixed", "STATUS=500")
	f.Host("web3").Load(f.Repo() + ":mixed")
	f.Image("mixed")
	for _, name := range []string{"web1", "web2", "web4"} {
		f.Host(name).Load(f.Repo() + ":mixed")
	}
	f.describe(t, "strategy: one-at-a-time")
	r := f.run(t, "deploy", "--id", "shop", "--revision", "mixed", "--on-failure", "rollback").want(5, "web3", "500", "going back to v1")
	t.Logf("there and back in %s", r.took.Round(time.Millisecond))
	wantRuns(t, f, all("v1 UP")...)
	nothingFailed(t, l)
}
