package display

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"conductor/internal/event"
)

// deploy is a picture of so many hosts of which some are done.
func deploy(hosts, done int, now time.Time) Picture {
	p := Picture{Head: []string{"shop → v2", "one at a time", fmt.Sprintf("wave %d of %d", done+1, hosts)}}
	for n := range hosts {
		r := Row{Name: fmt.Sprintf("web%02d", n+1), Runs: "v1", Will: "v2", Balancer: "in", Mark: Waits}
		switch {
		case n < done:
			r.Runs, r.Will, r.Mark = "v2", "", Good
		case n == done:
			r.Balancer, r.Doing, r.Cause, r.Since, r.Mark = "out", "upgrade", r.Name+" is out of the balancer and idle", now.Add(-83*time.Second), Works
		case n == hosts-1:
			r.Balancer, r.Doing, r.Cause, r.Mark = "", "failed", r.Name+": connect to 192.0.2.20 port 22: no route to host", Bad
		}
		p.Rows = append(p.Rows, r)
	}
	return p
}

func TestPicture_Frames(t *testing.T) {
	now := start
	long := deploy(3, 1, now)
	for n := range long.Rows {
		long.Rows[n].Runs = strings.Repeat("0123456789abcdef", 2)
		long.Rows[n].Cause = "it says \x1b[2J\x1b[31mno\nroom\ton it"
	}
	long.Rows[2].Name = "a-host-with-a-name-that-takes-much-of-the-width"
	for _, tt := range []struct {
		name          string
		p             Picture
		width, height int
		color         bool
	}{
		{"board-80", deploy(4, 1, now), 80, 24, false},
		{"board-color", deploy(4, 1, now), 80, 24, true},
		{"board-200", deploy(4, 2, now), 200, 50, false},
		{"board-20-hosts", deploy(20, 14, now), 80, 24, false},
		{"board-20-hosts-high", deploy(20, 14, now), 100, 40, false},
		{"board-low", deploy(20, 2, now), 80, 7, false},
		{"board-narrow", deploy(4, 1, now), 40, 24, false},
		{"board-long", long, 80, 24, false},
	} {
		lines := tt.p.frame(tt.width, tt.height, 95*time.Second, now, Painter(tt.color))
		golden(t, tt.name, strings.Join(lines, "\n")+"\n")
	}
}

// Whatever the size: the frame fits, leaves room for what is told above, and
// has the headline; who failed or is at work is there as long as there is room.
func TestPicture_FitsTheTerminal(t *testing.T) {
	for hosts := range 30 {
		p := deploy(hosts, hosts/2, start)
		for height := 2; height < 40; height++ {
			for _, width := range []int{20, 40, 80, 133} {
				lines := p.frame(width, height, time.Minute, start, false)
				if len(lines) >= height {
					t.Fatalf("%d hosts, %d×%d: %d lines", hosts, width, height, len(lines))
				}
				for n, l := range lines {
					if w := utf8.RuneCountInString(l); w >= width && (width >= 60 || n == 0) {
						t.Fatalf("%d hosts, %d×%d: %d columns: %q", hosts, width, height, w, l)
					}
				}
				text := strings.Join(lines, "\n")
				if !strings.HasPrefix(text, "shop → v2") || hosts > 2 && height > 6 && (!strings.Contains(text, "✗") || !strings.Contains(text, "›")) {
					t.Fatalf("%d hosts, %d×%d:\n%s", hosts, width, height, text)
				}
			}
		}
	}
}

// board runs a test with a board on a screen.
func board(t *testing.T, width, height int, test func(t *testing.T, b *Board, s *screen)) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(t, width, height)
		b := NewBoard(Options{Mode: TTY, Out: s, Err: s, Color: true, Start: time.Now()}, s.size)
		var running sync.WaitGroup
		running.Go(b.Run)
		test(t, b, s)
		b.Close()
		running.Wait()
	})
}

// settle has the board draw.
func settle() {
	time.Sleep(2 * refresh)
	synctest.Wait()
}

// A deploy as it is seen: what matters stays above, the rest is in the rows, and
// at the end the picture gives way to what comes then.
func TestBoard_Screens(t *testing.T) {
	board(t, 100, 20, func(t *testing.T, b *Board, s *screen) {
		say := func(n event.Name, host, instance, detail, cause string) {
			b.Event(event.Event{Time: time.Now(), Event: n, Host: host, Service: "shop", Revision: "v2", Instance: instance, Detail: detail, Cause: cause})
		}
		b.Show(deploy(4, 1, time.Now()))
		settle()
		golden(t, "screen-1-begins", s.String())
		time.Sleep(3 * time.Second)
		say(event.Started, "web02", "shop.v2.1a2b-1-1", "", "it was created")
		say(event.Healthy, "web02", "shop.v2.1a2b-1-1", "GET :3000/health: 200 OK", "probed")
		say(event.Warning, "web03", "", "its clock is off by 7s, which is a long story that does not fit into a hundred columns of a terminal at all", "")
		settle()
		golden(t, "screen-2-events", s.String())
		say(event.Failed, "web02", "shop.v2.1a2b-1-1", "exited 1 after 0.4 s, log:\nreading config\n\x1b[31mno DATABASE_URL\x1b[0m", "exited 1 after 0.4 s")
		say(event.Note, "", "", "paged alice", "hook on_failure")
		fmt.Fprintln(b.Above(s), "conductor: interrupted: coming to a clean end")
		b.Show(deploy(4, 2, time.Now()))
		settle()
		golden(t, "screen-3-failure", s.String())
		b.Close()
		io.WriteString(s, "a table\n")
		b.End(failed)
		golden(t, "screen-4-end", s.String())
	})
}

// Whatever happens to the terminal's size, one picture is left, whole, and lines
// above it stay.
func TestBoard_SurvivesResizes(t *testing.T) {
	board(t, 120, 30, func(t *testing.T, b *Board, s *screen) {
		b.Event(event.Event{Time: time.Now(), Event: event.Warning, Service: "shop", Detail: "told before"})
		b.Show(deploy(10, 3, time.Now()))
		settle()
		for n, size := range [][2]int{{60, 30}, {133, 30}, {33, 30}, {200, 40}, {80, 24}, {90, 10}, {90, 30}} {
			s.resize(size[0], size[1])
			settle()
			b.Event(event.Event{Time: time.Now(), Event: event.Note, Detail: fmt.Sprintf("told %d", n)})
			settle()
			text := s.String()
			if size[1] < 12 || n > 0 && strings.Contains(text, "told 5") {
				continue // the picture was higher than the terminal: some of it has scrolled away
			}
			if strings.Count(text, "shop → v2") != 1 || strings.Count(text, "web04") < 1 || strings.Count(text, "›") != 1 {
				t.Fatalf("at %v:\n%s", size, text)
			}
			for told := range n + 1 {
				if !strings.Contains(text, fmt.Sprintf("told %d", told)) || !strings.Contains(text, "told before") {
					t.Fatalf("at %v told %d is gone:\n%s", size, told, text)
				}
			}
		}
		b.Close()
		if text := strings.Join(strings.Fields(s.String()), " "); !strings.HasSuffix(text, "told 6") {
			t.Errorf("something is left of the picture:\n%s", s)
		}
	})
}

// Nothing is written where nothing has changed but within a second.
func TestBoard_IsQuiet(t *testing.T) {
	board(t, 80, 24, func(t *testing.T, b *Board, s *screen) {
		writes := 0
		b.o.Out = writer(func(p []byte) (int, error) { writes++; return s.Write(p) })
		b.Show(deploy(20, 3, time.Now()))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if writes < 10 || writes > 12 {
			t.Errorf("%d writes in 10 s", writes)
		}
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// While a person is asked, the picture stays as it was, above the question.
func TestBoard_Pauses(t *testing.T) {
	board(t, 80, 24, func(t *testing.T, b *Board, s *screen) {
		b.Show(deploy(2, 1, time.Now()))
		settle()
		resume := b.Pause()
		io.WriteString(b.Above(s), "Go on? [y/N] ")
		time.Sleep(time.Minute)
		synctest.Wait()
		if lines := strings.Split(s.String(), "\n"); lines[len(lines)-1] != "Go on? [y/N]" {
			t.Errorf("\n%s", s)
		}
		io.WriteString(s, "y\n")
		resume()
		settle()
		if text := s.String(); strings.Count(text, "shop → v2") != 2 || !strings.Contains(text, "Go on? [y/N] y\n") {
			t.Errorf("\n%s", s)
		}
	})
}

// Before there is a picture, and after it, a board writes what plain lines are.
func TestBoard_IsLinesWithoutAPicture(t *testing.T) {
	var lines, others strings.Builder
	o := Options{Mode: TTY, Out: &lines, Err: &lines, Start: start}
	d := New(o)
	o.Out, o.Err = &others, &others
	b := NewBoard(o, func() (int, int) { return 0, 0 })
	for _, e := range upgrade() {
		d.Event(e)
		b.Event(e)
	}
	d.End(failed)
	b.End(failed)
	if lines.String() != others.String() {
		t.Errorf("%s\nwant\n%s", others.String(), lines.String())
	}
}
