package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
)

// textEngine has logs of its own, by container.
type textEngine struct {
	engine.Engine
	logs map[string]string
	err  error
}

func (e textEngine) Logs(_ context.Context, id string, _ engine.LogOptions, stdout, _ io.Writer) error {
	// In pieces, as they come from a socket.
	for s := e.logs[id]; s != ""; {
		n := min(len(s), 7)
		if _, err := io.WriteString(stdout, s[:n]); err != nil {
			return err
		}
		s = s[n:]
	}
	return e.err
}

func logOf(instance string, seconds ...int) string {
	var b strings.Builder
	for _, s := range seconds {
		at := time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC)
		fmt.Fprintf(&b, "%s %s at %d\n", at.Format(time.RFC3339Nano), instance, s)
	}
	return b.String()
}

func TestLogs_AreMergedByTime(t *testing.T) {
	e := textEngine{logs: map[string]string{"a": logOf("a", 1, 4, 5, 9), "b": logOf("b", 2, 3, 6), "c": ""}}
	var out bytes.Buffer
	cs := []engine.Container{{ID: "a", Name: "a"}, {ID: "b", Name: "b"}, {ID: "c", Name: "c"}}
	if err := mergeLogs(t.Context(), e, cs, logRequest{}, &logWriter{w: &out}); err != nil {
		t.Fatal(err)
	}
	want := "a at 1\nb at 2\nb at 3\na at 4\na at 5\nb at 6\na at 9\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestLogs_EndWhenTheReaderIsGone(t *testing.T) {
	e := textEngine{logs: map[string]string{"a": strings.Repeat(logOf("a", 1), 10000), "b": strings.Repeat(logOf("b", 1), 10000)}}
	cs := []engine.Container{{ID: "a", Name: "a"}, {ID: "b", Name: "b"}}
	err := mergeLogs(t.Context(), e, cs, logRequest{}, &logWriter{w: failing{errReaderGone}})
	if !errors.Is(err, errReaderGone) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestLogs_TellWhatFailed(t *testing.T) {
	e := textEngine{logs: map[string]string{"a": logOf("a", 1)}, err: engine.ErrUnreachable}
	var out bytes.Buffer
	err := mergeLogs(t.Context(), e, []engine.Container{{ID: "a"}}, logRequest{}, &logWriter{w: &out})
	if !errors.Is(err, engine.ErrUnreachable) || out.String() != "a at 1\n" {
		t.Errorf("got %v, %q", err, out.String())
	}
}

func TestLogs_LinesOfAnyForm(t *testing.T) {
	stamp := "2026-01-01T00:00:01.5Z"
	for _, tt := range []struct{ in, want string }{
		{stamp + " one\n" + stamp + " two", "one\ntwo\n"}, // the last line does not end
		{stamp + " \n", "\n"},
		{stamp + "  two spaces \r\n", " two spaces \n"},
		{stamp + " 2026-01-02T00:00:00Z its own time\n", "2026-01-02T00:00:00Z its own time\n"},
		{stamp + " " + strings.Repeat("x", maxLine+100) + "\n", strings.Repeat("x", maxLine-len(stamp)-1) + "\n" + strings.Repeat("x", 100+len(stamp)+1) + "\n"},
	} {
		var out bytes.Buffer
		l := &logWriter{w: &out}
		e := textEngine{logs: map[string]string{"a": tt.in}}
		if err := readLog(t.Context(), e, engine.Container{ID: "a"}, engine.LogOptions{}, l.write); err != nil {
			t.Fatal(err)
		}
		if out.String() != tt.want {
			t.Errorf("%.60q: got %.60q (%d bytes), want %d", tt.in, out.String(), out.Len(), len(tt.want))
		}
	}
}

// A terminal is not to be steered by what an application writes; a file gets
// every byte.
func TestLogs_ToATerminalAreClean(t *testing.T) {
	line := logLine{Instance: "a", Line: "\x1b]0;title\x07red\x1b[2J"}
	for clean, want := range map[bool]string{true: "red\n", false: line.Line + "\n"} {
		var out bytes.Buffer
		if err := (&logWriter{w: &out, clean: clean}).write(line); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("clean %t: %q, want %q", clean, out.String(), want)
		}
	}
}
