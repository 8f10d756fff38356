package display

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"conductor/internal/event"
)

// Board is a Display for a terminal that has a Picture at its end, brought up to
// date in place. What a person must not miss (warnings, failures, notes) is
// written above it for good, as lines; what else happens shows in the rows.
//
// It leaves nothing to be undone at the terminal, however its process ends: the
// cursor is hidden, and lines are kept from wrapping, within one write alone.
type Board struct {
	o     Options
	size  func() (width, height int)
	lines *plain

	mu     sync.Mutex
	pic    Picture
	latest map[string]event.Event // by host, in its step
	frame  []string               // that is on the screen, the cursor below it
	paused bool
	closed chan struct{}
}

const (
	// refresh is how often the screen follows.
	refresh = 100 * time.Millisecond

	beginFrame = "\x1b[?2026h\x1b[?25l\x1b[?7l" // shown as a whole where the terminal can; no cursor, no wrapping
	endFrame   = "\x1b[?7h\x1b[?25h\x1b[?2026l"
	wrap       = "\x1b[?7h"
	noWrap     = "\x1b[?7l"
	restOfLine = "\x1b[K"
	restBelow  = "\x1b[J" // never of a whole screen, which some terminals keep
)

// NewBoard returns a board with no picture yet. size tells the terminal's, also
// when that changes; 0 is not known.
func NewBoard(o Options, size func() (width, height int)) *Board {
	return &Board{
		o: o, size: size, lines: &plain{o: o, paint: Painter(o.Color), width: subjectMin},
		latest: map[string]event.Event{}, closed: make(chan struct{}),
	}
}

// Run keeps the screen up to date until Close.
func (b *Board) Run() {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			b.draw("")
			b.mu.Unlock()
		case <-b.closed:
			return
		}
	}
}

// Show has the board show another picture from now on.
func (b *Board) Show(p Picture) {
	b.mu.Lock()
	defer b.mu.Unlock()
	doing := map[string]string{}
	for _, r := range b.pic.Rows {
		doing[r.Name] = r.Doing
	}
	for _, r := range p.Rows {
		if r.Doing != doing[r.Name] {
			delete(b.latest, r.Name)
		}
	}
	b.pic = p
}

// Event shows one thing that happened: in its host's row, or above for good.
func (b *Board) Event(e event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.on():
		b.lines.Event(e)
	case e.Event == event.Warning || e.Event == event.Failed || e.Event == event.Note || e.Host == "":
		b.draw(b.lines.line(e))
	default:
		b.latest[e.Host] = e
	}
}

// End takes the picture away, and shows how the command ended.
func (b *Board) End(r Result) {
	b.Close()
	b.lines.End(r)
}

// Close takes the picture away. What comes after it are lines.
func (b *Board) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return
	default:
	}
	b.erase()
	close(b.closed)
}

// Pause leaves the picture as it is, for who asks a person something below it.
// resume goes on with another one.
func (b *Board) Pause() (resume func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw("")
	b.frame, b.paused = nil, true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.paused = false
	}
}

// Above is for what is written to the same terminal past the board: it comes to
// stand above the picture. Each Write has whole lines.
func (b *Board) Above(w io.Writer) io.Writer { return above{b, w} }

type above struct {
	b *Board
	w io.Writer
}

func (a above) Write(p []byte) (int, error) {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	a.b.erase()
	return a.w.Write(p)
}

// on: there is a picture that follows.
func (b *Board) on() bool {
	select {
	case <-b.closed:
		return false
	default:
		return len(b.pic.Rows) > 0 && !b.paused
	}
}

// erase takes the picture from the screen; the next draw brings it back.
func (b *Board) erase() {
	if up := b.rows(); up > 0 {
		home := fmt.Sprintf("\r\x1b[%dA", up)
		b.write(home + strings.Repeat(restOfLine+"\n", up) + restBelow + home)
		b.frame = nil
	}
}

// draw brings the picture up to date, with lines above it that stay.
func (b *Board) draw(lines string) {
	if !b.on() {
		return
	}
	now := time.Now()
	width, height := b.terminal()
	frame := b.picture().frame(width, height, now.Sub(b.o.Start), now, b.lines.paint)
	if lines == "" && slices.Equal(frame, b.frame) {
		return
	}
	var s strings.Builder
	s.WriteString(beginFrame + "\r")
	if up := b.rows(); up > 0 {
		fmt.Fprintf(&s, "\x1b[%dA", up)
	}
	if lines != "" {
		s.WriteString(wrap + strings.ReplaceAll(lines, "\n", restOfLine+"\n") + noWrap)
	}
	for _, l := range frame {
		s.WriteString(l + restOfLine + "\n")
	}
	s.WriteString(restBelow + endFrame)
	b.write(s.String())
	b.frame = frame
}

// picture is the picture with what has happened in the steps.
func (b *Board) picture() Picture {
	p := b.pic
	p.Rows = slices.Clone(p.Rows)
	for n := range p.Rows {
		r := &p.Rows[n]
		e, ok := b.latest[r.Name]
		if !ok || r.Mark != Works {
			continue
		}
		r.Doing += " · " + CleanLine(string(e.Event))
		if text := say(e); text != "" {
			r.Cause = text
		}
	}
	return p
}

// rows is how many rows of the screen the picture takes that is there. A
// terminal that has become narrower has wrapped its lines.
func (b *Board) rows() (n int) {
	width, _ := b.terminal()
	for _, l := range b.frame {
		n += max(1, (utf8.RuneCountInString(Clean(l))+width-1)/width)
	}
	return n
}

// terminal is its size, or a usual one.
func (b *Board) terminal() (width, height int) {
	width, height = b.size()
	if width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

func (b *Board) write(s string) {
	_, _ = io.WriteString(b.o.Out, s) // what is shown may be lost, what is done may not
}
