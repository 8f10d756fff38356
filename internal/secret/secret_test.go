package secret

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

func TestParseEnv_Syntax(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"A=1\nB=2", "A=1|B=2"},
		{"A=1\r\nB=2\r\n", "A=1|B=2"},
		{"\ufeffA=1\n\n  # comment\n#B=2\n", "A=1"},
		{"export A=1\n  export  B = 2  \nexport=3", "A=1|B=2|export=3"},
		{"A=", "A="},
		{"A= # only a comment", "A="},
		{"A=x # comment", "A=x"},
		{"A=x# part of it", "A=x# part of it"},
		{"A=a b  c  ", "A=a b  c"},
		{"A==x=y=", "A==x=y="},
		{`A=$HOME ${B} $$`, `A=$HOME ${B} $$`},
		{`A=back\slash\n "in" 'it'`, `A=back\slash\n "in" 'it'`},
		{`A='$x \n "it" # no comment' # comment`, `A=$x \n "it" # no comment`},
		{`A='Let\'s go'`, `A=Let's go`},
		{`A="tab\tnl\n\"q\" \\ \$x \q \'"`, "A=tab\tnl\n\"q\" \\ $x \\q \\'"},
		{"A=\"1\n2\r\n\"\nB='3\n4'", "A=1\n2\r\n|B=3\n4"},
		{"A=1\nA=2", "A=2"},
		{"a.b-c_1=x\nÄ", "!2"},
		{"A=1\n=2", "!2"},
		{"A=1\n\nB C=2", "!3"},
		{"1A=2", "!1"},
		{"A=\"x\n\n", "!1"},
		{"A=1\nB='x\ny' z", "!3"},
		{"A: 1", "!1"},
	} {
		env := map[string]string{}
		err := parseEnv("/etc/env", test.text, env)
		if line, ok := strings.CutPrefix(test.want, "!"); ok {
			if err == nil || !strings.HasPrefix(err.Error(), "/etc/env:"+line+": ") || !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
				t.Errorf("%q: %v, want an error of line %s with a hint", test.text, err, line)
			}
			continue
		}
		var pairs []string
		for _, k := range []string{"A", "B", "export"} {
			if v, ok := env[k]; ok {
				pairs = append(pairs, k+"="+v)
			}
		}
		if got := strings.Join(pairs, "|"); err != nil || got != test.want {
			t.Errorf("%q: got %q, %v, want %q", test.text, got, err, test.want)
		}
	}
}

func TestParseEnv_ErrorsShowNoValues(t *testing.T) {
	for _, text := range []string{"A=hunter2\nhunter2", "hunter2", `A="hunter2`, `A="x" hunter2`, "hunter 2=hunter2", "1hunter2=x"} {
		if err := parseEnv("f", text, map[string]string{}); err == nil || strings.Contains(err.Error()+fault.Hint(err), "hunter") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add("A=1\nexport B='x\ny' # c\nC=\"\\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		env := map[string]string{}
		_ = parseEnv("f", text, env) // ends, and keys are keys
		for k := range env {
			if !isKey(k) {
				t.Errorf("key %q", k)
			}
		}
	})
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func reader(t *testing.T) *Reader {
	return New(func() ([]byte, error) { return []byte("key"), nil }, filepath.Join(t.TempDir(), "run"))
}

func TestReader_Precedence(t *testing.T) {
	c := spec.Container{
		Environment: map[string]string{"A": "env", "S": "env", "D": "010"},
		EnvFile: []spec.EnvFile{{Path: file(t, "A=1\nB=1\nC=1"), Required: true}, {Path: file(t, "B=2\nS=2"), Required: true},
			{Path: "/does/not/exist"}},
		Secrets: map[string]spec.Secret{
			"S": {File: file(t, "secret\n\n"), As: spec.AsEnv},
			"T": {Command: []string{"printf", `%s\n\n`, "x y"}, As: spec.AsEnv},
			"F": {File: file(t, "\x00\xff\n"), As: spec.AsFile},
			"G": {Command: []string{"printf", `a\n\n`}, As: spec.AsFile},
		},
	}
	m, err := reader(t).Read(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=env", "B=2", "C=1", "D=010", "S=secret\n", "T=x y\n"}; !reflect.DeepEqual(m.Env, want) {
		t.Errorf("got %q, want %q", m.Env, want)
	}
	if want := map[string][]byte{"F": []byte("\x00\xff\n"), "G": []byte("a\n")}; !reflect.DeepEqual(m.Files, want) {
		t.Errorf("got %q, want %q", m.Files, want)
	}
}

func TestReader_SumTellsContentsApart(t *testing.T) {
	sum := func(key, env, secret string, as spec.SecretAs) [32]byte {
		c := spec.Container{EnvFile: []spec.EnvFile{{Path: file(t, env), Required: true}}}
		if secret != "" {
			c.Secrets = map[string]spec.Secret{"S": {File: file(t, secret), As: as}}
		}
		m, err := New(func() ([]byte, error) { return []byte(key), nil }, "").Read(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return m.Sum
	}
	sums := map[[32]byte]string{}
	for _, args := range [][4]string{
		{"k", "A=1", ""}, {"k", "A=2", ""}, {"k", "A=1\nB=", ""}, {"k", "", ""},
		{"k", "A=1", "x", "env"}, {"k", "A=1", "y", "env"}, {"k", "A=1", "x", "file"}, {"other", "A=1", "x", "env"},
	} {
		s := sum(args[0], args[1], args[2], spec.SecretAs(args[3]))
		if was, ok := sums[s]; ok {
			t.Errorf("%v has the sum of %s", args, was)
		}
		sums[s] = fmt.Sprint(args)
	}
	if sum("k", "A=1\n", "", "") != sum("other", "# comment\n\nexport A='1'", "", "") {
		t.Error("a comment, or the key of a host without secrets, is in the sum")
	}
}

func TestReader_KeyIsAskedForSecretsAlone(t *testing.T) {
	boom := errors.New("boom")
	r := New(func() ([]byte, error) { return nil, boom }, "")
	if _, err := r.Read(t.Context(), spec.Container{}); err != nil {
		t.Error(err)
	}
	c := spec.Container{Secrets: map[string]spec.Secret{"S": {File: file(t, "x"), As: spec.AsEnv}}}
	if _, err := r.Read(t.Context(), c); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestReader_ReportsAllThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	c := spec.Container{
		EnvFile: []spec.EnvFile{{Path: "/no/env", Required: true}, {Path: dir, Required: false}, {Path: file(t, "hunter2"), Required: true}},
		Secrets: map[string]spec.Secret{
			"MISSING":   {File: "/no/secret", As: spec.AsEnv},
			"FAILS":     {Command: []string{"sh", "-c", "echo hunter2; echo first >&2; printf '\\033[31mno such key\\n' >&2; exit 3"}, As: spec.AsEnv},
			"LEAKS":     {Command: []string{"sh", "-c", "echo hunter2; echo got hunter2 >&2; exit 1"}, As: spec.AsEnv},
			"NOTFOUND":  {Command: []string{"no-such-command", "hunter2"}, As: spec.AsEnv},
			"NUL":       {File: file(t, "hunter2\x00"), As: spec.AsEnv},
			"LATIN":     {File: file(t, "hunter2\xe9"), As: spec.AsEnv},
			"ENDLESS":   {File: "/dev/zero", As: spec.AsEnv},
			"LARGE":     {Command: []string{"head", "-c", "2000000", "/dev/zero"}, As: spec.AsFile},
			"TEXT_FILE": {File: file(t, "fine"), As: spec.AsFile},
		},
	}
	m, err := reader(t).Read(t.Context(), c)
	if !errors.Is(err, fault.ErrHost) || len(m.Env)+len(m.Files) != 0 {
		t.Fatalf("got %v, %v", m, err)
	}
	for _, want := range []string{"/no/env", dir, ":1: ", "read secret MISSING: ", "/no/secret", "read secret FAILS: sh: exit status 3: [31mno such key",
		"LEAKS: sh: exit status 1", "NOTFOUND: no-such-command", "secret NUL has a NUL", "secret LATIN is not UTF-8", "/dev/zero is not a regular file", "LARGE"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "TEXT_FILE") {
		t.Errorf("too much is said:\n%v", err)
	}
	if fault.Hint(err) == "" {
		t.Error("no hint")
	}
}

func TestCommand_EndsWithItsGroup(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	argv := []string{"sh", "-c", `sleep 60 & echo $! $$ > "$1"; wait`, "sh", pids}
	for name, run := range map[string]func() error{
		"timeout": func() error {
			_, err := runWithin(t.Context(), "S", argv, 200*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), "did not end within 200ms") {
				t.Errorf("got %v", err)
			}
			return err
		},
		"interrupt": func() error {
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(200*time.Millisecond, func() { cancel(fault.ErrInterrupted) })
			defer timer.Stop()
			_, err := runCommand(ctx, "S", argv)
			if !errors.Is(err, fault.ErrInterrupted) {
				t.Errorf("got %v", err)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if run() == nil {
				t.Fatal("no error")
			}
			b, err := os.ReadFile(pids)
			if err != nil {
				t.Fatal(err)
			}
			var child, shell int
			if _, err := fmt.Sscan(string(b), &child, &shell); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(5 * time.Second); running(child) || running(shell); {
				if time.Now().After(deadline) {
					t.Fatal("it still runs")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// running is false for a process that has ended, reaped or not.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	return !bytes.Contains(b, []byte(") Z "))
}

func TestReader_InterruptedRead(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.ErrInterrupted)
	c := spec.Container{Secrets: map[string]spec.Secret{"S": {Command: []string{"true"}, As: spec.AsEnv}}}
	if _, err := reader(t).Read(ctx, c); !errors.Is(err, fault.ErrInterrupted) || errors.Is(err, fault.ErrHost) {
		t.Errorf("got %v", err)
	}
}

func TestMaterial_PrintsNoValues(t *testing.T) {
	m := Material{Env: []string{"A=hunter2"}, Files: map[string][]byte{"F": []byte("hunter2")}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "m", m, "p", &m, "in", []Material{m})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "m", m, "p", &m, "in", []Material{m})
	j, err := json.Marshal(map[string]any{"m": m, "p": &m})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v", m, m, m, m, m, m, m, &m, struct{ M Material }{m}) + log.String() + string(j) + fmt.Sprint([]any{m})
	for _, leak := range []string{"hunter", "A=", "104 117", "68756e", "aHVudGVy"} {
		if strings.Contains(said, leak) {
			t.Errorf("%q is in %s", leak, said)
		}
	}
	if !strings.Contains(said, "1 variables, 1 files") {
		t.Error(said)
	}
}

func TestReader_PlaceAndClear(t *testing.T) {
	r := reader(t)
	const instance = "shop.v2.1a2b-1-1"
	for range 2 {
		mounts, err := r.Place(instance, map[string][]byte{"A": []byte("a"), "B.pem": {0, 255}})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"A": "a", "B.pem": "\x00\xff"} {
			path := mounts["/run/secrets/"+name]
			b, err := os.ReadFile(path)
			if err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", path, b, err)
			}
			fi, err := os.Stat(path)
			if err != nil || fi.Mode() != 0o444 {
				t.Errorf("%s: %v, %v", path, fi, err)
			}
		}
		for _, dir := range []string{r.runDir, filepath.Join(r.runDir, instance)} {
			if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", dir, fi, err)
			}
		}
	}

	before, _ := os.Stat(filepath.Join(r.runDir, instance, "A"))
	if _, err := r.Place(instance, map[string][]byte{"A": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(filepath.Join(r.runDir, instance, "A"))
	if !os.SameFile(before, after) {
		t.Error("what is mounted in a running container was replaced by the same")
	}
	if _, err := os.Stat(filepath.Join(r.runDir, instance, "B.pem")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a secret that is no more is still there")
	}
	for range 2 {
		if err := r.Clear(instance); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(r.runDir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestReader_PlaceRefusesPaths(t *testing.T) {
	r := reader(t)
	f := map[string][]byte{"A": nil}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/", ".a"} {
		if _, err := r.Place(name, f); err == nil {
			t.Errorf("Place in %q worked", name)
		}
		if _, err := r.Place("shop", map[string][]byte{name: nil}); err == nil {
			t.Errorf("Place of %q worked", name)
		}
		if err := r.Clear(name); err == nil {
			t.Errorf("Clear of %q worked", name)
		}
	}
	if mounts, err := r.Place("shop", nil); len(mounts) != 0 || err != nil {
		t.Errorf("nothing to place: %v, %v", mounts, err)
	}
	if _, err := os.Stat(r.runDir); err == nil {
		t.Error("a folder was made for nothing")
	}
	file := New(nil, file(t, ""))
	if _, err := file.Place("shop", f); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("Place in a file: %v", err)
	}
}

func TestFile_ReadsOneValue(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "value")
	for text, want := range map[string]string{"v": "v", "v\n": "v", "v\r\n": "v", "v\n\n": "v\n", " v ": " v ", "": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := File("it", path); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, path := range []string{dir, path + ".gone"} {
		if _, err := File("the key of x", path); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" || !strings.Contains(err.Error(), "read the key of x: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
