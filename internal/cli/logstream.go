package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"conductor/internal/display"
	"conductor/internal/engine"
)

// logLine is one line of a log; its JSON form is what logs prints for programs.
type logLine struct {
	Time     time.Time `json:"time,omitzero"`
	Instance string    `json:"instance"`
	Stream   string    `json:"stream"` // stdout or stderr
	Line     string    `json:"line"`
}

// logWriter writes lines in the form that was asked for. It is safe for
// concurrent use.
type logWriter struct {
	w      io.Writer
	json   bool
	clean  bool // to a terminal: nothing in a log may steer it
	times  bool
	prefix bool // more than one instance
	paint  display.Painter

	mu    sync.Mutex
	width int
	color map[string]display.Style
}

func (a *app) logWriter(r logRequest, cs []engine.Container) *logWriter {
	_, tty := terminal(a.stdout)
	l := &logWriter{
		w: a.answerTo, json: a.json(), clean: tty, times: r.times, paint: display.Painter(a.color()),
		// Followed logs can get another instance at any time.
		prefix: len(cs) > 1 || r.follow && r.instance == "",
		color:  map[string]display.Style{},
	}
	for _, c := range cs {
		l.width = max(l.width, len(c.Name))
	}
	return l
}

func (l *logWriter) write(line logLine) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	if l.json {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(line); err != nil {
			return err
		}
		_, err := l.w.Write(b.Bytes())
		return err
	}
	if l.prefix {
		l.width = max(l.width, len(line.Instance))
		b.WriteString(l.paint.Paint(l.style(line.Instance), fmt.Sprintf("%-*s |", l.width, line.Instance)))
		b.WriteByte(' ')
	}
	if l.times && !line.Time.IsZero() {
		b.WriteString(l.paint.Dim(line.Time.Local().Format("2006-01-02T15:04:05.000Z07:00")))
		b.WriteByte(' ')
	}
	if l.clean {
		b.WriteString(display.Clean(line.Line))
	} else {
		b.WriteString(line.Line)
	}
	b.WriteByte('\n')
	_, err := l.w.Write(b.Bytes())
	return err
}

// style gives each instance a colour of its own, as far as there are any.
func (l *logWriter) style(instance string) display.Style {
	st, ok := l.color[instance]
	if !ok {
		st = display.Series[len(l.color)%len(display.Series)]
		l.color[instance] = st
	}
	return st
}

// mergeLogs writes the logs that are there, ordered by time.
func mergeLogs(ctx context.Context, e engine.Engine, cs []engine.Container, r logRequest, out *logWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	streams := make([]chan logLine, len(cs))
	errs := make([]error, len(cs))
	for i, c := range cs {
		streams[i] = make(chan logLine, 64)
		wg.Go(func() {
			defer close(streams[i])
			errs[i] = readLog(ctx, e, c, options(r, false), func(line logLine) error {
				select {
				case streams[i] <- line:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		})
	}
	// Each stream is in order: the next line of all is the earliest head.
	heads := make([]*logLine, len(cs))
	next := func(i int) {
		heads[i] = nil
		if line, ok := <-streams[i]; ok {
			heads[i] = &line
		}
	}
	for i := range cs {
		next(i)
	}
	for {
		first := -1
		for i, h := range heads {
			if h != nil && (first < 0 || h.Time.Before(heads[first].Time)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		if err := out.write(*heads[first]); err != nil {
			return err
		}
		next(first)
	}
	return errors.Join(errs...)
}

// followLogs writes lines as they come, of the containers given and, with
// labels, of those that start later. Without labels it ends with them.
func followLogs(ctx context.Context, e engine.Engine, cs []engine.Container, r logRequest, labels map[string]string, out *logWriter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	var mu sync.Mutex
	seen := map[string]bool{}
	follow := func(c engine.Container, o engine.LogOptions) {
		mu.Lock()
		defer mu.Unlock()
		if seen[c.ID] {
			return
		}
		seen[c.ID] = true
		wg.Go(func() {
			if err := readLog(ctx, e, c, o, out.write); err != nil && !errors.Is(err, engine.ErrNotFound) {
				cancel(err)
			}
		})
	}
	if labels == nil {
		for _, c := range cs {
			follow(c, options(r, true))
		}
		wg.Wait()
		return context.Cause(ctx)
	}
	err := e.Events(ctx, labels, func() {
		for _, c := range cs {
			follow(c, options(r, true))
		}
		// What started between the first look and now.
		if now, err := e.List(ctx, labels); err == nil {
			for _, c := range now {
				if c.State == engine.Running {
					follow(c, engine.LogOptions{Follow: true, Timestamps: true, Since: r.since})
				}
			}
		}
	}, func(ev engine.Event) {
		if ev.Action == "start" {
			follow(engine.Container{ID: ev.ID, Name: ev.Name}, engine.LogOptions{Follow: true, Timestamps: true})
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func options(r logRequest, follow bool) engine.LogOptions {
	return engine.LogOptions{Tail: r.tail, Since: r.since, Follow: follow, Timestamps: true}
}

// readLog gives each line of one container's log to f, until f fails.
func readLog(ctx context.Context, e engine.Engine, c engine.Container, o engine.LogOptions, f func(logLine) error) error {
	out := &lines{f: f, like: logLine{Instance: c.Name, Stream: "stdout"}}
	err := &lines{f: f, like: logLine{Instance: c.Name, Stream: "stderr"}}
	failed := e.Logs(ctx, c.ID, o, out, err)
	if failed == nil {
		failed = errors.Join(out.end(), err.end())
	}
	if failed != nil && errors.Is(failed, errReaderGone) {
		return errReaderGone
	}
	return failed
}

// maxLine bounds what is held of a line that does not end.
const maxLine = 1 << 20

// lines is a writer that cuts what it gets into lines with their times.
type lines struct {
	f    func(logLine) error
	like logLine
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) > maxLine {
			i = maxLine
			l.rest = append(l.rest[:i:i], append([]byte{'\n'}, l.rest[i:]...)...)
		}
		if i < 0 {
			return len(b), nil
		}
		line := string(l.rest[:i])
		l.rest = l.rest[i+1:]
		if err := l.line(line); err != nil {
			return 0, err
		}
	}
}

// end gives the last line, where it did not end.
func (l *lines) end() error {
	if len(l.rest) == 0 {
		return nil
	}
	line := string(l.rest)
	l.rest = nil
	return l.line(line)
}

func (l *lines) line(text string) error {
	line := l.like
	line.Line = strings.TrimSuffix(text, "\r")
	stamp, rest, _ := strings.Cut(line.Line, " ")
	if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
		line.Time, line.Line = t, rest
	}
	return l.f(line)
}
