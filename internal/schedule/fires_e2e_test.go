//go:build e2e

package schedule

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// run is a job that the real cron has started, by its number in the crontab.
type run struct {
	job int
	at  time.Time // by the clock of the machine
}

var logged = regexp.MustCompile(`CMD \(: job (\d+)\)`)

// runs reads cron's log until the job with the number has been started so many
// times, and a little longer, and returns what was started.
func (c *realCron) runs(t *testing.T, job, times int, minute time.Duration) []run {
	t.Helper()
	var all []run
	deadline := time.Now().Add(time.Duration(times)*minute + time.Minute)
	buf := make([]byte, 4096)
	for {
		if err := c.log.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, err := c.log.Read(buf)
		if err != nil && times <= 0 {
			return all
		}
		if err != nil {
			t.Fatalf("cron has not run job %d, %d times are missing: %v", job, times, err)
		}
		if m := logged.FindSubmatch(buf[:n]); m != nil {
			number, _ := strconv.Atoi(string(m[1]))
			all = append(all, run{number, time.Now()})
			if number == job {
				if times--; times == 0 {
					deadline = time.Now().Add(minute * 4 / 5)
				}
			}
		}
	}
}

// The jobs that are due in minutes which are left out are in few minutes: cron
// waits 10 s after each such minute, and takes the next for late after 60 s.
func TestNext_NamesWhenCronFires(t *testing.T) {
	jobs := []string{
		"*/10 * * * *", "@hourly", "0,30 2 * * *", "0 3 * * *", "*/15 2 * * *", "59 1 * * *", "30 1 * * *", "5 */2 * * *",
		"20 1-3/2 * * *", "40 3 29-31 3 sun", "0 2 */1 * sun", "10-13 1 * * *", "1 1 1 1 *", "50 1,3 1-8 4,10 *", "7;8 3.4 * * *",
		"0-59 1 31 2 *",
	}
	const (
		minute = 600 * time.Millisecond
		rate   = int(time.Minute / minute)
	)
	for _, c := range changes[:6] { // the first six are of today
		t.Run(strings.ReplaceAll(c.zone, "/", " ")+" "+c.at[:10], func(t *testing.T) {
			t.Parallel()
			loc := zone(t, c.zone)
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			from, to := at.Add(-time.Hour), at.Add(2*time.Hour+10*time.Minute)
			var b strings.Builder
			for i, fields := range append(jobs, "* * * * *") {
				fmt.Fprintf(&b, "%s root : job %d\n", fields, i)
			}
			cron := newRealCron(t)
			cron.write(t, "cron.d/test", b.String(), 0o644)
			// Half a minute before, lest the first minute has begun.
			cron.start(t, from.Add(-30*time.Second), loc, rate)

			// The last job runs in every minute, and is cron's clock: a run belongs to
			// the minute that began last, or begins right now.
			pulse := len(jobs)
			all := cron.runs(t, pulse, int(to.Sub(from)/time.Minute), minute)
			var pulses []time.Time
			for _, r := range all {
				if r.job == pulse {
					pulses = append(pulses, r.at)
				}
			}
			got := make([][]time.Time, len(jobs))
			for _, r := range all {
				if r.job == pulse {
					continue
				}
				n, _ := slices.BinarySearchFunc(pulses, r.at.Add(minute/10), time.Time.Compare)
				at := from.Add(time.Duration(n-1) * time.Minute)
				if at.Before(to) && !slices.ContainsFunc(got[r.job], at.Equal) {
					got[r.job] = append(got[r.job], at)
				}
			}
			for i, fields := range jobs {
				if want := named(parsed(t, fields), from, to, loc); !same(got[i], want) {
					t.Errorf("%s\ncron ran it %s\nNext names %s", fields, clocks(got[i], loc), clocks(want, loc))
				}
			}
			t.Logf("%d runs, %d of them told the minutes", len(all), len(pulses))
		})
	}
}

func TestGenerate_RealCronCallsConductorAndNothingElse(t *testing.T) {
	cron := newRealCron(t)
	out := filepath.Join(cron.dir, "out")
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o777); err != nil { // jobs run as nobody
		t.Fatal(err)
	}
	// The program writes its arguments and its input to a file that the revision
	// names.
	program := filepath.Join(cron.dir, `the conductor's 100% \% \\`)
	script := `#!/bin/sh
shift 4; file=$1; shift
{ printf '%s\0' "$@"; cat; } >` + out + `/$$ && mv ` + out + `/$$ ` + out + `/$file
`
	cron.write(t, filepath.Base(program), script, 0o755)

	touch := "touch " + out + "/leaked"
	lines := []string{
		"# comment; " + touch,
		"MAILTO=\"\"",
		"SHELL=/bin/evil-shell",
		"PATH=" + out + ":$(" + touch + ")",
		"LD_PRELOAD='/lib/evil.so'",
		"A B = x",
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { _, err := Parse(l); return err != nil })
	if len(lines) != 5 {
		t.Fatal(lines)
	}
	for _, command := range []string{
		"bin/x --plain 'a  b' c=d", touch, touch + "%" + touch, "x; " + touch, "x && " + touch + " || " + touch, "x | " + touch,
		"$(" + touch + ")", "`" + touch + "`", "x' ; " + touch + " '", `x\'; ` + touch, `x" ; ` + touch + ` "`, "x > " + out + "/leaked",
		`date +\%F \\%in%put \% \\% end`, `x\\\\\%\\n%a\`, `x \`, "x $HOME ~ * # y", "x\t'é ☃'", "exec " + touch, "-c " + touch,
		`a \%$(` + touch + `)%$(` + touch + `)%`, "x%%%",
	} {
		lines = append(lines, "* * * * * "+command)
	}
	c, err := Parse(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	// One crontab a job, each with a revision of its own.
	env := environment{{"PATH", out + ":$(" + touch + ")"}, {"LD_PRELOAD", "/lib/evil.so"}}
	want := make(map[string]string)
	for i, j := range c.Jobs() {
		one := Crontab{Lines: append(slices.Clone(c.Lines[:5]), Line{Job: &j})}
		target := Target{Conductor: program, Service: "s", Revision: fmt.Sprint("r", i), OnLock: Skip, User: "nobody"}
		text, err := Generate(one, target)
		if err != nil {
			t.Fatal(err)
		}
		cron.write(t, fmt.Sprint("cron.d/job", i), text, 0o644)
		want[target.Revision] = strings.Join(arguments(j, target, env, "/bin/evil-shell")[5:], "\x00") + "\x00" + j.Input
	}
	cron.start(t, time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC), time.UTC, 20)
	got := make(map[string]string)
	for deadline := time.Now().Add(time.Minute); len(got) < len(want) && time.Now().Before(deadline); {
		for name := range want {
			if text, err := os.ReadFile(filepath.Join(out, name)); err == nil {
				got[name] = string(text)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	files, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[f.Name()]; !ok && strings.Trim(f.Name(), "0123456789") != "" {
			t.Errorf("a command ran on the host: %s", f.Name())
		}
	}
}
