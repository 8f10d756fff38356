package schedule

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// OnLock is what a run does when the one before it still holds its lock.
type OnLock string

const (
	Allow   OnLock = "allow" // runs beside it: there is no lock
	Wait    OnLock = "wait"
	Skip    OnLock = "skip"
	Replace OnLock = "replace" // stops the other, then runs
)

// OnLocks are all words for OnLock.
var OnLocks = []OnLock{Allow, Wait, Skip, Replace}

// MaxJitter is the longest jitter: a job that is due once a day still runs once a day.
const MaxJitter = 24 * time.Hour

// directive is what comments ask for the next job.
type directive struct {
	line   int // of the first one; 0: there is none
	onLock OnLock
	jitter *time.Duration
}

// parse adds what a comment says, if it is a directive:
// "conductor: on-lock=skip jitter=30s". comment is what comes after the #.
func (d *directive) parse(line int, comment string) *Problem {
	text, ok := strings.CutPrefix(strings.TrimLeft(comment, blanks), "conductor:")
	if !ok {
		return nil
	}
	if d.line == 0 {
		d.line = line
	}
	const form = `write "# conductor: on-lock=skip jitter=30s", or one of the two`
	words := strings.Fields(text)
	if len(words) == 0 {
		return bad(form, "the directive says nothing")
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "on-lock":
			if d.onLock != "" {
				return bad("", "on-lock is there twice for one job")
			}
			if !slices.Contains(OnLocks, OnLock(value)) {
				return bad("on-lock is allow, wait, skip or replace", "on-lock cannot be %s", brief(value))
			}
			d.onLock = OnLock(value)
		case "jitter":
			if d.jitter != nil {
				return bad("", "jitter is there twice for one job")
			}
			t, err := time.ParseDuration(value)
			if err != nil || t < 0 || t > MaxJitter {
				return bad(fmt.Sprintf("jitter is a duration from 0s to %s, such as 30s or 5m", brevity(MaxJitter)),
					"jitter cannot be %s", brief(value))
			}
			d.jitter = &t
		default:
			return bad(form, "unknown word %s in the directive", brief(w))
		}
	}
	return nil
}

// brevity is the duration without what is zero at its end: 5m, not 5m0s.
func brevity(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
