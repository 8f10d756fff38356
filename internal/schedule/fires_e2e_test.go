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
func (c *realCron) runs(job, times int, minute time.Duration) ([]run, error) {
	var all []run
	deadline := time.Now().Add(time.Duration(times)*minute + time.Minute)
	buf := make([]byte, 4096)
	for {
		if err := c.log.SetReadDeadline(deadline); err != nil {
			return all, err
		}
		n, err := c.log.Read(buf)
		if err != nil && times <= 0 {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("cron has not run job %d, %d times are missing: %w", job, times, err)
		}
		if m := logged.FindSubmatch(buf[:n]); m != nil {
			number, _ := strconv.Atoi(string(m[1]))
			all = append(all, run{number, time.Now()})
			if number == job {
				if times--; times == 0 {
					deadline = time.Now().Add(minute / 2)
				}
			}
		}
	}
}

// cron waits 10 s after each minute that it catches up with. So that it stays
// within a minute here, few of these minutes have a job.
var fired = []string{
	"*/10 * * * *", "@hourly", "30 2 * * *", "0 3 * * *", "*/15 2 * * *", "59 1 * * *", "30 1 * * *", "5 */2 * * *",
	"20 1-3/2 * * *", "40 3 29-31 3 sun", "30 2 */1 * sun", "10-13 1 * * *", "1 1 1 1 *", "50 1,3 1-8 4,10 *", "7;8 3.4 * * *",
	"0-59 1 31 2 *", "* * * * *",
}

func TestNext_NamesWhenCronFires(t *testing.T) {
	t.Parallel()
	// A minute takes so long: a third of it may pass until a busy machine has
	// run the jobs of one.
	const minute = 2 * time.Second
	var b strings.Builder
	for i, fields := range fired {
		fmt.Fprintf(&b, "%s root : job %d\n", fields, i)
	}
	// The last job runs in every minute: it tells when one begins.
	pulse := len(fired) - 1
	type result struct {
		name     string
		loc      *time.Location
		from, to time.Time
		all      []run
		err      error
	}
	results := make(chan result)
	for _, c := range changes[:6] { // the first six are of today
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		r := result{name: c.zone + " " + c.at[:10], loc: zone(t, c.zone), from: at.Add(-time.Hour), to: at.Add(80 * time.Minute)}
		cron := newRealCron(t)
		cron.write(t, "cron.d/test", b.String(), 0o644)
		// Half a minute before, lest the first minute has begun.
		cron.start(t, r.from.Add(-30*time.Second), r.loc, int(time.Minute/minute))
		go func() {
			r.all, r.err = cron.runs(pulse, int(r.to.Sub(r.from)/time.Minute), minute)
			results <- r
		}()
	}
	for range changes[:6] {
		r := <-results
		if r.err != nil {
			t.Errorf("%s: %v", r.name, r.err)
			continue
		}
		want := make(map[int][]time.Time)
		for i, fields := range fired {
			want[i] = named(parsed(t, fields), r.from, r.to, r.loc)
		}
		got := minutes(r.all, pulse, r.from, minute, want)
		for i, fields := range fired {
			if !same(got[i], want[i]) {
				t.Errorf("%s: %s\ncron ran it %s\nNext names  %s", r.name, fields, clocks(got[i], r.loc), clocks(want[i], r.loc))
			}
		}
		t.Logf("%s: %d runs", r.name, len(r.all))
	}
}

// minutes says for each job in which minutes it ran. They are counted by the
// runs of one job, since a clock that runs so fast is not to be relied on. A
// run belongs to the minute that began before it, or is about to. On a machine
// that stands still for a second, it cannot be told which: then it is the one
// that is wanted. A job that runs in another minute runs at its beginning, too.
func minutes(all []run, pulse int, from time.Time, minute time.Duration, want map[int][]time.Time) map[int][]time.Time {
	var pulses []time.Time
	for _, r := range all {
		if r.job == pulse {
			pulses = append(pulses, r.at)
		}
	}
	ran := make(map[int][]time.Time)
	// during is the minute of what came so long before it at most.
	during := func(at time.Time, before time.Duration) time.Time {
		n, _ := slices.BinarySearchFunc(pulses, at.Add(before), time.Time.Compare)
		return from.Add(time.Duration(n-1) * time.Minute)
	}
	for _, r := range all {
		at := during(r.at, minute*2/5)
		if r.job == pulse {
			at = from.Add(time.Duration(len(ran[pulse])) * time.Minute)
		} else if late := during(r.at, minute/20); !slices.ContainsFunc(want[r.job], at.Equal) && slices.ContainsFunc(want[r.job], late.Equal) {
			at = late
		}
		if !slices.ContainsFunc(ran[r.job], at.Equal) { // it ran for two minutes in one
			ran[r.job] = append(ran[r.job], at)
		}
	}
	return ran
}

// files waits until jobs have written files of all the names, and returns what
// is in them.
func (c *realCron) files(t *testing.T, dir string, names map[string]string) map[string]string {
	t.Helper()
	// cron logs the end of each job, and stands still when nobody reads that.
	if err := c.log.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for buf := make([]byte, 4096); len(got) < len(names); {
		if _, err := c.log.Read(buf); err != nil {
			t.Logf("%d of %d files: %v", len(got), len(names), err)
			break
		}
		for name := range names {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				got[name] = string(text)
			}
		}
	}
	return got
}

// A variable has the value that Parse says, as it was written and as String
// writes it. The shell's own environment is looked at: it passes on less.
func TestParse_RealCronSetsVariables(t *testing.T) {
	t.Parallel()
	cron := newRealCron(t)
	want := make(map[string]string)
	for i, v := range variables {
		texts := []string{v.text}
		if !strings.Contains(v.name, " ") { // none that String is for has one
			texts = append(texts, Variable{v.name, v.value}.String())
		}
		for j, text := range texts {
			name := fmt.Sprintf("v%d-%d", i, j)
			want[name] = fmt.Sprintf("%s: %s=%s\n", text, v.name, v.value)
			cron.write(t, "cron.d/"+name, text+"\n* * * * * root cat /proc/$$/environ >"+cron.dir+"/tmp."+name+
				" && mv "+cron.dir+"/tmp."+name+" "+cron.dir+"/"+name+"\n", 0o644)
		}
	}
	cron.start(t, time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC), time.UTC, 20)
	for name, environ := range cron.files(t, cron.dir, want) {
		text, set, _ := strings.Cut(strings.TrimSuffix(want[name], "\n"), ": ")
		if !slices.Contains(strings.Split(environ, "\x00"), set) {
			t.Errorf("%s is not %q in %q", text, set, environ)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not run: %v", want)
	}
}

func TestGenerate_RealCronCallsConductorAndNothingElse(t *testing.T) {
	t.Parallel()
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
	got := cron.files(t, out, want)
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
