package display

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"conductor/internal/event"
)

// jsonLines writes one JSON object a line, the result last. What went wrong is
// told to people as well, on stderr: who reads the program's log reads that.
type jsonLines struct {
	mu  sync.Mutex
	out io.Writer
	err io.Writer
}

func (j *jsonLines) Event(e event.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	j.write(e)
}

// resultLine is the last line. Its first four fields are the contract.
type resultLine struct {
	Event    string `json:"event"`
	OK       bool   `json:"ok"`
	Code     int    `json:"code"`
	Error    string `json:"error"`
	Hint     string `json:"hint,omitempty"`
	Outcomes any    `json:"outcomes,omitempty"`
}

func (j *jsonLines) End(r Result) {
	l := resultLine{Event: "result", OK: r.Code == 0, Code: r.Code, Outcomes: r.Outcomes}
	var texts []string
	for _, f := range r.Failures {
		texts = append(texts, f.Text)
		if l.Hint == "" {
			l.Hint = f.Hint
		}
	}
	l.Error = strings.Join(texts, "\n")
	j.write(l)
	j.mu.Lock()
	defer j.mu.Unlock()
	WriteFailures(j.err, false, r.Failures)
}

func (j *jsonLines) write(v any) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return // only text, numbers and times are ever given
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = io.WriteString(j.out, b.String()) // what is shown may be lost, what is done may not
}

// WriteDocument writes the one JSON document of a command that answers a
// question. Unlike progress, an answer that could not be written is an error.
func WriteDocument(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
