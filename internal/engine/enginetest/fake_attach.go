package enginetest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"conductor/internal/engine"
)

// attachment is one caller of Attach: what was printed and not written yet,
// and a channel that says that there is some.
type attachment struct {
	queue []line
	wake  chan struct{} // room for one
}

// Attach carries what the process prints on the caller's own goroutine. Where
// the container was created with Stdin, another one reads s.Stdin until its
// end, or until it next has a byte after the process has ended. Sizes are left
// in their channel.
func (f *Fake) Attach(ctx context.Context, id string, s engine.Streams, attached func()) error {
	return f.during(ctx, "Attach", id, func(ctx context.Context) error {
		f.mu.Lock()
		c, err := f.container(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		if c.State != engine.Created && c.State != engine.Running {
			f.mu.Unlock()
			return fmt.Errorf("attach to container %s: %w: it has ended", id, engine.ErrConflict)
		}
		a := &attachment{wake: make(chan struct{}, 1)}
		c.attached[a] = true
		run, feeds := c.ended, s.Stdin != nil && c.made.Stdin && !c.fed
		c.fed = c.fed || feeds
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(c.attached, a)
			if feeds {
				f.feed(c, run, "", true)
			}
		}()
		attached()
		if feeds {
			go f.read(c, run, s.Stdin)
		}
		for ended := false; ; {
			f.mu.Lock()
			queue := a.queue
			a.queue = nil
			if c.State == engine.Removing && c.StartedAt.IsZero() {
				run, ended = nil, false // Docker does not tell
			}
			f.mu.Unlock()
			for _, l := range queue {
				w := s.Stdout
				if l.stderr {
					w = s.Stderr
				}
				if w == nil {
					continue
				}
				if _, err := io.WriteString(w, l.text); err != nil {
					return fmt.Errorf("attach to container %s: %w", id, err)
				}
			}
			if ended {
				return nil
			}
			select {
			case <-a.wake:
			case <-run:
				ended = true // nothing is printed any more; look once
			case <-ctx.Done():
				return fmt.Errorf("attach to container %s: %w", id, ctx.Err())
			}
		}
	})
}

// read feeds the container's process with stdin.
func (f *Fake) read(c *container, run chan struct{}, stdin io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := stdin.Read(buf)
		f.mu.Lock()
		// The input of a terminal has no end.
		goes := f.feed(c, run, string(buf[:n]), err != nil && !c.made.TTY)
		f.mu.Unlock()
		if err != nil || !goes {
			return
		}
	}
}

// feed adds to the standard input of one run of a container, which may not
// have begun, and says whether it has not ended.
func (f *Fake) feed(c *container, run chan struct{}, text string, end bool) bool {
	select {
	case <-run:
		return false
	default:
	}
	c.input += text
	c.inputEnds = c.inputEnds || end
	f.consume(c)
	return true
}

// consume lets the process have the input that is there.
func (f *Fake) consume(c *container) {
	if c.State != engine.Running || !c.live.Echo {
		return
	}
	text := c.input
	c.input = ""
	c.print(time.Now(), false, text)
	if c.inputEnds || !c.made.Stdin {
		f.end(c, c.live.Code, c.live.OOM)
	}
}

// print is output of the process: into the log, and to who is attached.
func (c *container) print(at time.Time, stderr bool, text string) {
	if text == "" {
		return
	}
	if c.made.TTY {
		stderr, text = false, strings.ReplaceAll(text, "\n", "\r\n")
	}
	for l := range strings.Lines(text) {
		if n := len(c.lines) - 1; n >= 0 && c.lines[n].stderr == stderr && !strings.HasSuffix(c.lines[n].text, "\n") {
			c.lines[n].text += l
			continue
		}
		c.lines = append(c.lines, line{at, stderr, l})
	}
	for a := range c.attached {
		a.queue = append(a.queue, line{at, stderr, text})
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}
