package cli

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"

	"conductor/internal/display"
)

// errReaderGone: who read our output has closed it (conductor … | head).
var errReaderGone = errors.New("the reader of the output is gone")

// guard is stdout. Once its reader is gone all writes fail with errReaderGone:
// an answer ends there, quietly; a verb goes on, for what it does matters more
// than who watches.
type guard struct {
	w    io.Writer
	gone atomic.Bool
}

func (g *guard) Write(b []byte) (int, error) {
	if g.gone.Load() {
		return 0, errReaderGone
	}
	n, err := g.w.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		g.gone.Store(true)
		return n, errReaderGone
	}
	return n, err
}

// descriptor returns the file descriptor behind a stream, false where it is
// not a terminal.
func terminal(s any) (fd int, ok bool) {
	if g, is := s.(*guard); is {
		s = g.w
	}
	f, is := s.(interface{ Fd() uintptr })
	if !is {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// defaultMode is by who reads: a person at a terminal; CI may have one too.
func (a *app) defaultMode() display.Mode {
	if _, ok := terminal(a.stdout); ok && !inCI(a.env.Getenv("CI")) {
		return display.TTY
	}
	return display.Plain
}

func inCI(ci string) bool { return ci != "" && ci != "false" && ci != "0" }

// color says whether to paint: a person's terminal that does not refuse.
func (a *app) color() bool {
	return a.output.mode == display.TTY && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"
}

// width is the terminal's, 0 where there is none.
func (a *app) width() int {
	if fd, ok := terminal(a.stdout); ok {
		if w, _, err := term.GetSize(fd); err == nil {
			return w
		}
	}
	return 0
}
