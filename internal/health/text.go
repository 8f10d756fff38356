package health

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
)

// escapes are the sequences that move cursors, change colours and set titles.
var escapes = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[PX^_][^\x1b]*(?:\x1b\\\\)?|[ -/]*[0-~])")

// clean makes text from an instance fit to be shown on a terminal, in one line.
func clean(s string) string {
	s = escapes.ReplaceAllString(strings.ToValidUTF8(s, "\ufffd"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
}

// cut shortens to at most n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

// seconds writes a duration as people say it.
func seconds(d time.Duration) string {
	if d > 0 && d < 100*time.Millisecond {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	s := d.Seconds()
	if s < 9.95 && s != float64(int(s)) {
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

// bytesText writes a size as people say it.
func bytesText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[u]
}

const longestLine = 500 // bytes of a line that are kept

// lines keeps the last lines of several streams in the order in which they end.
type lines struct {
	max int

	mu      sync.Mutex
	kept    []string
	streams []*stream
}

type stream struct {
	l       *lines
	partial []byte
}

// stream returns a writer whose lines go into l.
func (l *lines) stream() io.Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &stream{l: l}
	l.streams = append(l.streams, s)
	return s
}

func (s *stream) Write(p []byte) (int, error) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	for _, b := range p {
		if b == '\n' {
			s.end()
		} else if len(s.partial) < 4*longestLine {
			s.partial = append(s.partial, b)
		}
	}
	return len(p), nil
}

func (s *stream) end() {
	line := strings.TrimRight(clean(strings.TrimSuffix(string(s.partial), "\r")), " ")
	s.partial = s.partial[:0]
	if line == "" {
		return
	}
	if len(s.l.kept) == s.l.max {
		s.l.kept = s.l.kept[1:]
	}
	s.l.kept = append(s.l.kept, cut(line, longestLine))
}

// all returns the last lines, with what was not ended by a newline.
func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.end()
	}
	return append([]string(nil), l.kept...)
}
