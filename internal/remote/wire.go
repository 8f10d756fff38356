package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// What both ends write besides the answer. A login shell may print whatever it
// likes before the far end runs, on both streams, and ssh's own exit code 255
// means two things; so the far end says where its answer begins, and how it
// ended.
const (
	// Greeting is the first thing that the far end writes to stdout and stderr.
	Greeting = "\x00conductor session\x00\n"

	// The last thing on stderr is an Ending between these.
	endingStart, endingEnd = "\x00conductor end ", "\x00\n"
	maxEnding              = 64 << 10
)

// Interrupt is the line that has a request come to a clean end.
const Interrupt = "interrupt"

const (
	BeatEvery = 5 * time.Second  // between two lines of a Hold
	BeatLost  = 20 * time.Second // without a line: the near end is gone
	beat      = "beat\n"
)

// Take is the line that has a Hold take the lock that it has waited to be asked
// for.
const Take = "take"

// What ends the context of a request at the far end, beside fault.ErrInterrupted.
var (
	// ErrGone: the near end has let go of a Hold, or nobody reads the output of
	// a request whose Input is Bytes any more.
	ErrGone = errors.New("the asking conductor is gone")
	// ErrSilent: the near end of a Hold may be there, and says nothing.
	ErrSilent = errors.New("the asking conductor has said nothing for " + BeatLost.String())
)

// Ending is how the far end ended.
type Ending struct {
	Code  int    `json:"code"`            // exit code
	Error string `json:"error,omitempty"` // in words, where stderr does not say it
	Hint  string `json:"hint,omitempty"`
}

// Greet writes what comes first.
func Greet(stdout, stderr io.Writer) error {
	if _, err := io.WriteString(stdout, Greeting); err != nil {
		return err
	}
	_, err := io.WriteString(stderr, Greeting)
	return err
}

// Write writes the ending, which comes last.
func (e Ending) Write(stderr io.Writer) error {
	const most = 8 << 10 // JSON may make six of one
	e.Error, e.Hint = cut(e.Error, most), cut(e.Hint, 1<<10)
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stderr, endingStart+string(b)+endingEnd)
	return err
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// FindEnding looks whether b begins with an ending, and how long that is. With
// n 0, more says whether it may be the beginning of one.
func FindEnding(b []byte) (e Ending, n int, more bool) {
	s := string(b[:min(len(b), maxEnding)])
	if len(s) < len(endingStart) {
		return e, 0, strings.HasPrefix(endingStart, s)
	}
	body, ok := strings.CutPrefix(s, endingStart)
	if !ok {
		return e, 0, false
	}
	text, _, whole := strings.Cut(body, endingEnd)
	if !whole {
		return e, 0, len(b) < maxEnding
	}
	if json.Unmarshal([]byte(text), &e) != nil {
		return e, 0, false
	}
	return e, len(endingStart) + len(text) + len(endingEnd), false
}

// Beat writes a line to w now and each BeatEvery, and Take once take is closed,
// until stop is closed or a write fails.
func Beat(w io.Writer, take, stop <-chan struct{}) {
	tick := time.NewTicker(BeatEvery)
	defer tick.Stop()
	for line := beat; ; {
		if _, err := io.WriteString(w, line); err != nil {
			return
		}
		select {
		case <-tick.C:
			line = beat
		case <-take:
			line, take = Take+"\n", nil
		case <-stop:
			return
		}
	}
}

// HeldEvent and SightEvent are what lines of an answer are, besides events.
const HeldEvent, SightEvent = "held", "sight"

// Held is the line by which the answer to Hold says that it has the lock.
var Held = []byte(`{"event":"` + HeldEvent + `"}` + "\n")

// Sight is the line of an answer that says what Observe would.
type Sight struct {
	Event string          `json:"event"` // SightEvent
	Seen  json.RawMessage `json:"seen"`
}

// Result is the last line of the answer to a Command that is a verb, and to
// Migrate.
type Result struct {
	Event    string          `json:"event"` // "result"
	OK       bool            `json:"ok"`
	Code     int             `json:"code"`
	Error    string          `json:"error"`
	Hint     string          `json:"hint"`
	Outcomes json.RawMessage `json:"outcomes"`
}

func (h Host) String() string {
	where := h.SSH
	if h.Port != 0 {
		where += fmt.Sprintf(" port %d", h.Port)
	}
	if h.Name == "" || h.Name == where {
		return where
	}
	return h.Name + " (" + where + ")"
}
