package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var target = Target{Conductor: "/usr/local/bin/conductor", Service: "gocardless_cron_production", Revision: "279d903588"}

func generated(t testing.TB, text string, target Target) string {
	t.Helper()
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Generate(c, target)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGenerate_Plain(t *testing.T) {
	got := generated(t, `# Clean up expired API tokens
*/30 * * * * scripts/cleanup-api-tokens
`, target)
	want := `# Clean up expired API tokens
*/30 * * * * /usr/local/bin/conductor run --id gocardless_cron_production --revision 279d903588 scripts/cleanup-api-tokens
`
	if got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestGenerate_Lines(t *testing.T) {
	all := Target{Conductor: "/opt/the conductor", Config: "/etc/100%/c.yml", Service: "shop", Revision: "v1;2",
		OnLock: Skip, Jitter: 90 * time.Second, User: "root"}
	short := Target{Conductor: "/c", Service: "s", Revision: "r"}
	for _, tt := range []struct {
		name   string
		target Target
		text   string
		want   string
	}{
		{"everything", all, "@daily\tbin/x  'a  b'%in%put",
			`@daily root '/opt/the conductor' run --config /etc/100\%/c.yml --id shop --revision 'v1;2' --lock shop.5f43f2cb --on-lock skip --jitter 1m30s bin/x  'a  b'%in%put`},
		{"directives before defaults", all, "# conductor: on-lock=allow jitter=0s\n5  4 * * * x",
			"# conductor: on-lock=allow jitter=0s\n5  4 * * * root '/opt/the conductor' run --config /etc/100\\%/c.yml --id shop --revision 'v1;2' x"},
		{"directives", short, "# conductor: on-lock=wait\n#conductor: jitter=2h\n* * * * * x\n* * * * * x",
			"# conductor: on-lock=wait\n#conductor: jitter=2h\n* * * * * /c run --id s --revision r --lock s.2c618b3c --on-lock wait --jitter 2h x\n* * * * * /c run --id s --revision r x"},
		{"shell syntax", short, "* * * * * cd /app && bin/x 'it''s' > log 2>&1",
			`* * * * * /c run --id s --revision r /bin/sh -c 'cd /app && bin/x '\\''it'\\'''\\''s'\\'' > log 2>&1'`},
		{"percent", short, `* * * * * date +\%F`, `* * * * * /c run --id s --revision r date +\%F`},
		{"percent and syntax", short, `0 0 * * * test $(date +\%d) -le 7 && x%`,
			`0 0 * * * /c run --id s --revision r /bin/sh -c 'test $(date +\%d) -le 7 && x'%`},
		{"shell", short, "SHELL=/bin/bash\n* * * * * x\n* * * * * x; y\nSHELL='/bin/zsh'\n* * * * * x; y",
			"* * * * * /c run --id s --revision r x\n* * * * * /c run --id s --revision r /bin/bash -c 'x; y'\n* * * * * /c run --id s --revision r /bin/zsh -c 'x; y'"},
		{"cron's own variables", short, "MAILTO = ''\nMAILFROM=a b\nCRON_TZ=\"Europe/Berlin\"\nCONTENT_TYPE=x\nRANDOM_DELAY=3\nLOGNAME=me",
			"MAILTO=\"\"\nMAILFROM=a b\nCRON_TZ=Europe/Berlin\nCONTENT_TYPE=x\nRANDOM_DELAY=3\nLOGNAME=me"},
		{"other variables", short, "* * * * * a\nPATH=/bin:$HOME\nLD_PRELOAD=/evil.so\n* * * * * b\nPATH=/x\nTZ = 100%\n\"A B\"='$(x)'\n* * * * * c",
			"* * * * * /c run --id s --revision r a\n" +
				"* * * * * /c run --id s --revision r --env 'PATH=/bin:$HOME' --env LD_PRELOAD=/evil.so b\n" +
				"* * * * * /c run --id s --revision r --env PATH=/x --env LD_PRELOAD=/evil.so --env TZ=100\\% --env 'A B=$(x)' c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want+"\n", generated(t, tt.text, tt.target)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestGenerate_DigestStaysWithTheLine(t *testing.T) {
	locked := target
	locked.OnLock = Wait
	lock := func(text string, target Target) string {
		_, rest, _ := strings.Cut(generated(t, text, target), "--lock ")
		name, _, _ := strings.Cut(rest, " ")
		return name
	}
	next := locked
	next.Revision = "v2"
	if a, b := lock("0 1 * * * x", locked), lock("A=b\n# c\n0 1 * * * x\n", next); a != b || !strings.HasPrefix(a, target.Service+".") {
		t.Error(a, b)
	}
	for _, other := range []string{"0 2 * * * x", "0 1 * * * y", "0 1 * * * x%y"} {
		if lock("0 1 * * * x", locked) == lock(other, locked) {
			t.Errorf("%s has the lock of another line", other)
		}
	}
}

func TestGenerate_LinesThatGetTooLong(t *testing.T) {
	c, err := Parse("* * * * * x\nA=b" + strings.Repeat("'", 400) + "\n* * * * * y\nA=\"\"\n* * * * * " + strings.Repeat("\\\\z", 330) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	text, err := Generate(c, target)
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 2 || ps[0].Line != 3 || ps[1].Line != 5 || text != "" {
		t.Errorf("%v, %q", err, text)
	}
}

func TestGenerate_ThousandsOfVariablesAndJobs(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "A%d=%s\n* * * * * x\n", i, strings.Repeat("v", 900))
	}
	c, err := Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err = Generate(c, target); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestGenerate_RefusesATarget(t *testing.T) {
	for _, tt := range []struct {
		change func(*Target)
		want   string
	}{
		{func(t *Target) { t.Conductor = "conductor" }, "not absolute"},
		{func(t *Target) { t.Conductor = "/a\nb" }, "control character"},
		{func(t *Target) { t.Config = "conductor.yml" }, "not absolute"},
		{func(t *Target) { t.Config = "/a\x00" }, "control character"},
		{func(t *Target) { t.Service = "" }, "must be named"},
		{func(t *Target) { t.Revision = "" }, "must be named"},
		{func(t *Target) { t.Revision = "a\n* * * * * root x" }, "control character"},
		{func(t *Target) { t.OnLock = "never" }, "on-lock cannot be"},
		{func(t *Target) { t.Jitter = -1 }, "jitter cannot be"},
		{func(t *Target) { t.User = "root x" }, "no user"},
	} {
		wrong := target
		tt.change(&wrong)
		if text, err := Generate(Crontab{}, wrong); err == nil || text != "" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// crontabs draws crontabs of lines that are likely to be good, hostile ones
// among them.
var crontabs = rapid.Custom(func(t *rapid.T) string {
	line := rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]string{"", " ", "# ", "# conductor: on-lock=replace", "# conductor: jitter=7m"}).Draw(t, "line")
		case 1:
			return rapid.SampledFrom([]string{"MAILTO", "A", "PATH", "LD_PRELOAD", "CONTENT_TYPE", `"a b"`, "$(x)"}).Draw(t, "name") +
				"=" + hostile.Draw(t, "value")
		case 2:
			return "SHELL=" + rapid.SampledFrom([]string{"/bin/sh", `"/bin/bash"`}).Draw(t, "shell")
		case 3:
			return rapid.SampledFrom([]string{"@reboot", "@daily", "@hourly\t"}).Draw(t, "nickname") + " " + hostile.Draw(t, "command")
		default:
			return schedules.Draw(t, "fields") + " " + hostile.Draw(t, "command")
		}
	})
	return strings.Join(rapid.SliceOfN(line, 0, 6).Draw(t, "lines"), "\n")
})

// targets draws what a definition and a host may say.
func targets(t *rapid.T, program string) Target {
	return Target{Conductor: program, Service: "s-1",
		Config:   rapid.SampledFrom([]string{"", "/etc/c.yml", "/a b/%d\\'$(x).yml"}).Draw(t, "config"),
		Revision: rapid.OneOf(rapid.Just("v1"), rapid.Map(hostile, func(s string) string { return "r" + strings.ReplaceAll(s, "\t", " ") })).Draw(t, "revision"),
		OnLock:   rapid.SampledFrom([]OnLock{"", Allow, Wait, Skip, Replace}).Draw(t, "on-lock"),
		Jitter:   rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "jitter")}
}

func TestGenerate_CallsConductorAndNothingElse(t *testing.T) {
	s := newSandbox(t)
	var jobs int
	rapid.Check(t, func(t *rapid.T) {
		c, err := Parse(crontabs.Draw(t, "crontab"))
		if err != nil {
			return
		}
		jobs += checkGenerated(t, s, c, targets(t, s.program))
	})
	if jobs == 0 {
		t.Error("no job was generated")
	}
}

// checkGenerated checks that the crontab which is generated of c has its lines
// and schedules, and that each of its commands, in a real shell, calls the
// program once, with the arguments that the job of c asks for. It returns how
// many jobs there were.
func checkGenerated(t interface{ Fatalf(string, ...any) }, s *sandbox, c Crontab, target Target) int {
	text, err := Generate(c, target)
	if err != nil {
		if ps := (Problems)(nil); !errors.As(err, &ps) {
			t.Fatalf("%v", err)
		}
		return 0
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var env environment
	shell := "/bin/sh"
	line := 0
	for _, l := range c.Lines {
		if v := l.Variable; v != nil && v.Name == "SHELL" {
			shell = v.Value
			continue
		} else if v != nil && !cronOwn[v.Name] {
			env.set(*v)
			continue
		}
		g := again.Lines[line]
		line++
		switch {
		case l.Variable != nil:
			if g.Variable == nil || *g.Variable != *l.Variable {
				t.Fatalf("%q became %q", l.Text, g.Text)
			}
		case l.Job == nil:
			if g.Text != l.Text {
				t.Fatalf("%q became %q", l.Text, g.Text)
			}
		case g.Job == nil || g.Job.Schedule != l.Job.Schedule || g.Job.Fields != l.Job.Fields || g.Job.Input != l.Job.Input:
			t.Fatalf("%q became %q", l.Text, g.Text)
		default:
			if got, want := s.run(t, g.Job.Command), arguments(*l.Job, target, env, shell); !cmp.Equal(got, want) {
				t.Fatalf("%q became %q:\n%s", l.Text, g.Text, cmp.Diff(want, got))
			}
		}
	}
	if line != len(again.Lines) {
		t.Fatalf("%q has more lines than there should be", text)
	}
	return len(again.Jobs())
}

// arguments are what conductor must be called with.
func arguments(j Job, t Target, env environment, shell string) []string {
	args := []string{"run"}
	if t.Config != "" {
		args = append(args, "--config", t.Config)
	}
	args = append(args, "--id", t.Service, "--revision", t.Revision)
	if j.OnLock == "" {
		j.OnLock = t.OnLock
	}
	if j.OnLock != "" && j.OnLock != Allow {
		args = append(args, "--lock", t.Service+"."+j.Digest(), "--on-lock", string(j.OnLock))
	}
	if j.Jitter == nil {
		j.Jitter = &t.Jitter
	}
	if *j.Jitter > 0 {
		args = append(args, "--jitter", brevity(*j.Jitter))
	}
	for _, v := range env {
		args = append(args, "--env", v.Name+"="+v.Value)
	}
	if Plain(j.Command) {
		return append(args, j.Argv()...)
	}
	return append(args, shell, "-c", j.Command)
}

// FuzzParse: whatever is parsed can be written and parsed again, and what is
// generated of it calls conductor and nothing else.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"# Clean up\n*/30 * * * * scripts/cleanup-api-tokens\n",
		"MAILTO=\"\"\n@daily a && b%c%d\n",
		"SHELL=/bin/bash\nA='b c'\n# conductor: on-lock=skip jitter=5m\n1-5/2,7 22 * jan-mar mon test $(date +\\%d) \\\\ \"q\"\n",
		"0 22-6 * * * x\n=\n\"\n",
	} {
		f.Add(seed)
	}
	s := newSandbox(f)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			if err.Error() == "" || len(c.Lines) > 0 {
				t.Error("an empty error, or half a crontab")
			}
			return
		}
		again, err := Parse(c.String())
		if d := cmp.Diff(c, again, cmp.AllowUnexported(Schedule{})); err != nil || d != "" {
			t.Fatal(err, d)
		}
		if len(text) > 2000 {
			return // each job starts a shell
		}
		checkGenerated(t, s, c, Target{Conductor: s.program, Service: "s", Revision: "r", OnLock: Skip, Jitter: time.Hour})
	})
}
