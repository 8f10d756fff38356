package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/remote"
)

// asked is the answer of a session to a request.
type asked struct {
	code        int
	out, errs   string // without the greetings
	ending      remote.Ending
	hasGreeting bool
}

func ask(t *testing.T, dir string, r remote.Request, input string) asked {
	t.Helper()
	line, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"session", "--config", filepath.Join(dir, "conductor.yml")}, Env{
		Stdin: strings.NewReader(string(line) + input), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" },
		Name: "conductor", Open: openFake,
	})
	a := asked{code: code}
	_, after, found := strings.Cut(errs.String(), remote.Greeting)
	a.out, a.hasGreeting = strings.CutPrefix(out.String(), remote.Greeting)
	a.hasGreeting = a.hasGreeting && found
	if i := strings.LastIndex(after, "\x00conductor end"); i >= 0 {
		a.errs = after[:i]
		a.ending, _, _ = remote.FindEnding([]byte(after[i:]))
	}
	return a
}

func host(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"conductor.yml":     "state_dir: " + dir + "/state\n",
		"services/shop.yml": "image: shop\nhttp: {port: 3000}\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func commandLine(args ...string) remote.Request {
	return remote.Request{Version: "1", Do: remote.Command, By: "alice@laptop", Args: args}
}

// A command answers with JSON, and the history has who asked for it.
func TestSession_Command(t *testing.T) {
	dir := host(t)
	a := ask(t, dir, commandLine("service", "upgrade", "--id", "shop", "--revision", "v2"), "")
	if a.code != 0 || !a.hasGreeting || a.ending.Code != 0 {
		t.Fatalf("%+v", a)
	}
	lines := strings.Split(strings.TrimSpace(a.out), "\n")
	var last remote.Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Event != "result" || !last.OK {
		t.Errorf("%v: %q", err, lines[len(lines)-1])
	}
	a = ask(t, dir, commandLine("service", "history", "--id", "shop"), "")
	if !strings.Contains(a.out, `"alice@laptop"`) {
		t.Errorf("history: %s", a.out)
	}
}

// Exec leaves the streams to what it runs.
func TestSession_Exec(t *testing.T) {
	dir := host(t)
	ask(t, dir, commandLine("service", "upgrade", "--id", "shop", "--revision", "v2"), "")
	a := ask(t, dir, remote.Request{Do: remote.Exec, Args: []string{"service", "status"}}, "")
	if a.code != 0 || !strings.Contains(a.out, "shop") || strings.Contains(a.out, "{") {
		t.Errorf("%+v", a)
	}
}

func TestSession_Refuses(t *testing.T) {
	dir := host(t)
	for _, test := range []struct {
		name string
		r    remote.Request
		code int
		says string // on stderr, or in the ending
	}{
		{"a session in a session", commandLine("session"), 2, `conductor has no command "session"`},
		{"one behind flags", commandLine("--config", "x", "session"), 2, `conductor has no command "session"`},
		{"a deploy", commandLine("deploy", "--id", "shop"), 2, `conductor has no command "deploy"`},
		{"fleet commands", commandLine("fleet", "status"), 2, `conductor has no command "fleet"`},
		{"an unknown service", commandLine("service", "upgrade", "--id", "nope", "--revision", "v2"), 3, "nope"},
		{"a lock that nobody keeps", remote.Request{Do: remote.Command, Hold: "t", Args: []string{"version"}}, 7, "keeps no locks"},
		{"what it does not know", remote.Request{Do: "dance", Version: "9.9"}, 9, `"dance", which that of 9.9 asks for`},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := ask(t, dir, test.r, "")
			if a.code != test.code || a.ending.Code != test.code || !strings.Contains(a.errs+a.ending.Error, test.says) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// Exit codes mean the same at both ends.
func TestSession_ClassesAreThoseOfTheTable(t *testing.T) {
	known := 0
	for _, c := range exitCodes {
		got := remote.ClassCode(c.class)
		if got == 1 {
			continue // a port's own error, which no other machine hears of
		}
		known++
		if got != c.code {
			t.Errorf("%v: %d there, %d here", c.class, got, c.code)
		}
	}
	if known != 10 { // those of fault
		t.Errorf("%d classes are known at both ends, want 10", known)
	}
}
