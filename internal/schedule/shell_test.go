package schedule

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// sandbox is a folder with a program in it that prints its arguments, where
// lines of crontabs can be given to a real shell: it has no PATH, and where
// tests run as root it is nobody.
type sandbox struct {
	dir     string
	program string
}

func newSandbox(t testing.TB) *sandbox {
	t.Helper()
	dir := t.TempDir()
	s := &sandbox{dir: filepath.Join(dir, "cwd"), program: filepath.Join(dir, "a conductor's $HOME %1 `x`")}
	script := "#!/bin/sh\nprintf '%s\\0' \"$@\"\nprintf '\\1\\0'\n"
	for _, err := range []error{
		os.Chmod(filepath.Dir(dir), 0o755), // not only for root
		os.Chmod(dir, 0o755),
		os.Mkdir(s.dir, 0o777),
		os.Chmod(s.dir, 0o777),
		os.WriteFile(s.program, []byte(script), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// run gives the line to /bin/sh as cron does, and returns the arguments that
// the program was called with. Nothing else may have happened.
func (s *sandbox) run(t interface{ Fatalf(string, ...any) }, line string) []string {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, []string{"PATH=/nowhere", "HOME=/nowhere"}, &stdout, &stderr
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	err := cmd.Run()
	args, rest, ok := bytes.Cut(stdout.Bytes(), []byte("\x01\x00"))
	if err != nil || !ok || len(rest) > 0 || stderr.Len() > 0 {
		t.Fatalf("%s\nhad more effects than one call: %v, stdout %q, stderr %q", line, err, stdout.String(), stderr.String())
	}
	if files, err := os.ReadDir(s.dir); err != nil || len(files) > 0 {
		t.Fatalf("%s\nleft files: %v, %v", line, files, err)
	}
	return strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
}

func TestPlain(t *testing.T) {
	for _, tt := range []struct {
		command string
		want    bool
	}{
		{"scripts/cleanup-api-tokens", true},
		{"bin/x --dry-run --n=3 a@b.c:80/path,+1 %", true},
		{`  bin/x 'a b' "c 'd'" e'f'"g"	''`, true},
		{`'bin/my program'`, true},
		{"bin/x '$HOME `a` \\ ; é'", true},
		{"echo hello", true},
		{"", false},
		{" ", false},
		{"''", false},
		{"--help", false},
		{"'-x'", false},
		{"A=b bin/x", false},
		{"bin/x a && b", false},
		{"a|b", false},
		{"a;b", false},
		{"a >b", false},
		{"a 2>&1", false},
		{"a <b", false},
		{"a &", false},
		{"(a)", false},
		{"a $X", false},
		{`a "$X"`, false},
		{"a `b`", false},
		{"a \"`b`\"", false},
		{`a \b`, false},
		{`a "\b"`, false},
		{"a *.go", false},
		{"a ?", false},
		{"a [b]", false},
		{"a ~/b", false},
		{"a # b", false},
		{"a {b,c}", false},
		{"a !b", false},
		{"a ^b", false},
		{"a é", false},
		{`a "b`, false},
		{`a 'b`, false},
		{"cd /app", false},
		{". env", false},
		{"'.' env", false},
		{": nothing", false},
		{"exec bin/x", false},
		{"export A=b", false},
		{"if true", false},
		{"time bin/x", false},
		{"command -v x", false},
		{"! a", false},
	} {
		if got := Plain(tt.command); got != tt.want {
			t.Errorf("%s: %v", tt.command, got)
		}
	}
}

// hostile draws commands and values that are made of what shells and cron
// understand.
var hostile = rapid.Custom(func(t *rapid.T) string {
	parts := rapid.SliceOf(rapid.OneOf(
		rapid.SampledFrom(strings.Fields("% \\% \\ \\\\ $ $( $HOME ${A} ` ' \" ; & && | || < > >> >f ( ) { } * ? [a] ~ # ! = - -- -c a b "+
			"touch echo if fi do done cd exec eval .  : A=b é ☃ %% \\' \\\" '\\'' $'a' \\n && 2>&1 <<E ~root /bin/sh 'a \"b \"a' )")),
		rapid.SampledFrom([]string{" ", " ", "\t", "'x y'", `"x y"`}),
		rapid.StringMatching(`[!-~ ]{0,4}`),
	))
	return strings.Join(parts.Draw(t, "parts"), "")
})

func TestPlain_AShellReadsNothingButWords(t *testing.T) {
	s := newSandbox(t)
	var plain int
	rapid.Check(t, func(t *rapid.T) {
		command := hostile.Draw(t, "command")
		if !Plain(command) {
			command = rapid.StringMatching(`([a-d./%=,:@+-]{1,3}|'[ -&(-~]{0,3}'|"[ !#%-\[\]-_a-~]{0,3}"|[ 	]){1,6}`).Draw(t, "plain")
		}
		if !Plain(command) {
			return
		}
		plain++
		got := s.run(t, Quote(s.program)+" "+command)
		if want := (Job{Command: command}).Argv(); !slices.Equal(got, want) {
			t.Fatalf("%q is %q to a shell, want %q", command, got, want)
		}
	})
	if plain == 0 {
		t.Error("no command was plain")
	}
}

func TestWrap_TheShellIsGivenTheCommand(t *testing.T) {
	s := newSandbox(t)
	for _, command := range []string{"a && b", "'", "''", `\'`, "$(touch f)", "`touch f`", "a\tb  c ", ">f", "-x", "é%"} {
		got := s.run(t, Quote(s.program)+" "+Wrap(command, "/bin/bash"))
		if d := cmp.Diff([]string{"/bin/bash", "-c", command}, got); d != "" {
			t.Error(d)
		}
	}
}

func TestQuote_OneWord(t *testing.T) {
	s := newSandbox(t)
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(hostile, rapid.StringMatching("[^\x00\x01]*")).Draw(t, "word")
		if got := s.run(t, Quote(s.program)+" "+Quote(word)); len(got) != 1 || got[0] != word {
			t.Fatalf("%q is %q", word, got)
		}
	})
}
