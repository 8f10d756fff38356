//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// generator is an image's generate-cron that prints a text.
func generator(text string) string {
	return "#!/bin/sh\ncat <<'END_OF_CRONTAB'\n" + text + "END_OF_CRONTAB\n"
}

// The image's crontab becomes one whose lines run its jobs in containers. It
// changes nothing on the host by itself.
func TestCron_Generate(t *testing.T) {
	t.Parallel()
	e := New(t)
	for rev, at := range map[string]string{"v1": "srv/generate-cron", "v2": "generate-cron", "v3": "bin/generate-cron"} {
		e.Shell(rev, map[string]string{at: generator("# Clean up expired API tokens\n*/30 * * * * scripts/cleanup-api-tokens " + rev + "\n")})
	}
	const id = "gocardless_cron_production"
	e.Service(id, "kind: job\nimage: "+e.Repo()+"\n")
	conductor, err := filepath.EvalSymlinks(binaries.conductor)
	must(t, err)
	call := conductor + " run --config " + e.Path("conductor.yml") + " --id " + id + " --revision "
	for _, rev := range []string{"v1", "v2", "v3"} {
		want := "# Clean up expired API tokens\n*/30 * * * * " + call + rev + " scripts/cleanup-api-tokens " + rev + "\n"
		if r := e.Conductor("cron", "generate", "--id", id, "--revision", rev).Want(0); r.Stdout != want {
			t.Errorf("got\n%swant\n%s", r.Stdout, want)
		}
	}
	e.wantNoRuns(id)
}

// A line that was generated does in its container what the image's line says,
// with the host's shell before it, and nothing on the host.
func TestCron_LinesRunInTheirContainers(t *testing.T) {
	t.Parallel()
	e := New(t)
	canary := e.Path("canary")
	for n, c := range []struct{ line, stdin, stdout string }{
		{line: "echo a && echo b", stdout: "a\nb\n"},
		{line: "echo $REVISION; touch " + canary + " || :", stdout: "v1\n"},
		{line: `printf '[\%s]' "it's" 'a  b' \$HOME ` + "`echo c`", stdout: "[it's][a  b][$HOME][c]"},
		{line: `cat%one%two`, stdout: "one\ntwo\n"},
		{line: "echo x > /tmp/f; cat /tmp/f", stdout: "x\n"},
		{line: "echo 'x; touch " + canary + "'", stdout: "x; touch " + canary + "\n"},
		{line: "echo $X", stdout: "from the crontab\n"},
	} {
		rev := "v1"
		e.Shell(rev, map[string]string{"generate-cron": generator("MAILTO=ops@example.com\nX=from the crontab\nLD_PRELOAD=" + canary + "\n* * * * * " + c.line + "\n")})
		e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
		text := e.Conductor("cron", "generate", "--id", "jobs", "--revision", rev).Want(0).Stdout
		kept, line, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
		command, ok := strings.CutPrefix(line, "* * * * * ")
		if !ok || !strings.HasPrefix(kept, "MAILTO=") {
			t.Fatalf("line %d: generated:\n%s", n, text)
		}
		got := e.asCron(command)
		if got != c.stdout {
			t.Errorf("%s\nbecame %s\nand printed %q, want %q", c.line, line, got, c.stdout)
		}
		if e.exists(canary) {
			t.Fatalf("%s\nbecame %s\nand reached the host", c.line, line)
		}
	}
	e.wantNoRuns("jobs")
}

// A generate-cron that is not there, fails, hangs, prints too much or no
// crontab: that is told, and nothing is printed.
func TestCron_BadGenerators(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
	e.Service("web", "image: "+e.Repo()+"\ncommand: [sleep, '1000']\n")
	for name, c := range map[string]struct {
		script string
		args   []string
		code   int
		words  []string
	}{
		"missing":      {code: 5, words: []string{"no generate-cron", "working directory"}},
		"fails":        {script: "#!/bin/sh\necho '* * * * * x'\necho no database >&2\nexit 3\n", code: 5, words: []string{"exited 3", "no database"}},
		"hangs":        {script: "#!/bin/sh\nsleep 1000\n", args: []string{"--timeout", "5s"}, code: 124},
		"prints 10 MB": {script: "#!/bin/sh\nhead -c 10000000 /dev/zero\n", code: 5, words: []string{"more than 1 MiB"}},
		"no crontab":   {script: generator("# fine\n* * * * * ok\n61 * * * * x\n* * * * *\n@sometimes x\n"), code: 5, words: []string{"line 3", "line 4", "line 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.With(t)
			files := map[string]string{}
			if c.script != "" {
				files["generate-cron"] = c.script
			}
			e.Shell("v1", files)
			r := e.Conductor(append(c.args, "cron", "generate", "--id", "jobs", "--revision", "v1")...).Want(c.code, c.words...)
			if r.Stdout != "" {
				t.Errorf("it printed all the same: %s", r)
			}
			within(t, 30*time.Second, r.Took, "it")
		})
	}
	e.Conductor("cron", "generate", "--id", "web", "--revision", "v1").Want(2, "cron: {}")
	e.wantNoRuns("jobs")
}
