package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"conductor/internal/fault"
	"conductor/internal/remote"
	"conductor/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is what a session wrote.
type answers struct{ out, errs bytes.Buffer }

// ending is the session's, from stderr.
func (a *answers) ending(t *testing.T) remote.Ending {
	t.Helper()
	rest, ok := strings.CutPrefix(a.errs.String(), remote.Greeting)
	if !ok || !strings.HasPrefix(a.out.String(), remote.Greeting) {
		t.Fatalf("no greeting: %q, %q", a.out.String(), a.errs.String())
	}
	i := strings.LastIndex(rest, "\x00conductor end")
	if i < 0 {
		t.Fatalf("no ending: %q", rest)
	}
	e, n, _ := remote.FindEnding([]byte(rest[i:]))
	if n != len(rest[i:]) {
		t.Fatalf("the ending is not the last: %q", rest)
	}
	return e
}

func server(do map[remote.Do]session.Handler) *session.Server {
	return &session.Server{Version: "1.5", Code: remote.ClassCode, Do: do}
}

func line(t *testing.T, r remote.Request) string {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A request that is not understood as it was meant is refused, never done in
// part, and it is said who speaks what.
func TestServe_RefusesRequests(t *testing.T) {
	for _, test := range []struct {
		name, in string
		code     int
		says     string
	}{
		{"none", "", 2, "read request: there is none"},
		{"cut off", `{"protocol":1,"version":"1.4","do":"command"}`, 2, "it was cut off"},
		{"no JSON", "GET / HTTP/1.1\r\n\r\n", 2, "invalid character"},
		{"no UTF-8", "{\"protocol\":1,\"version\":\"1.4\",\"do\":\"command\",\"by\":\"\xff\"}\n", 2, "UTF-8"},
		{"two", `{"protocol":1,"do":"command"}{}` + "\n", 2, "invalid character"},
		{"too long", strings.Repeat("x", remote.MaxRequest+1) + "\n", 2, "longer than 1048576 bytes"},
		{"endless", strings.Repeat("x", 3*remote.MaxRequest), 2, "longer than 1048576 bytes"},
		{"another protocol", `{"protocol":2,"version":"2.0","do":"command","with":{}}` + "\n", 9, "the asking conductor is 2.0, the host's is 1.5: they speak protocol 2 and 1"},
		{"a field that is not known", `{"protocol":1,"version":"1.6","do":"command","canary":true}` + "\n", 9, `the asking conductor is 1.6, the host's is 1.5: the host's does not know what is meant (json: unknown field "canary")`},
		{"a handler that is not there", `{"protocol":1,"version":"1.6","do":"dance"}` + "\n", 9, `the host's conductor (1.5) does not know how to "dance", which that of 1.6 asks for; it knows command`},
		{"nothing to do", `{"protocol":1,"version":"1.5"}` + "\n", 2, "what to do"},
		{"by two", `{"protocol":1,"version":"1.5","do":"command","by":"alice\nbob"}` + "\n", 2, "by is no line of text"},
		{"a lock that nobody keeps", `{"protocol":1,"version":"1.5","do":"command","hold":"t"}` + "\n", 7, "keeps no locks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var a answers
			s := server(map[remote.Do]session.Handler{remote.Command: func(context.Context, session.Call) error {
				t.Error("it was done")
				return nil
			}})
			code := s.Serve(t.Context(), strings.NewReader(test.in), &a.out, &a.errs)
			e := a.ending(t)
			if code != test.code || e.Code != code || !strings.Contains(e.Error, test.says) {
				t.Errorf("%d, %+v; want %d, %q", code, e, test.code, test.says)
			}
			if code == 9 && !strings.Contains(e.Hint, "one version") {
				t.Errorf("hint %q", e.Hint)
			}
		})
	}
}

// The longest request is one, and what comes after it is the input.
func TestServe_InputBeginsAfterTheLine(t *testing.T) {
	r := remote.Request{Do: remote.Exec, Args: []string{""}}
	r.Args[0] = strings.Repeat("a", remote.MaxRequest-len(line(t, r)))
	in := line(t, r)
	if len(in) != remote.MaxRequest {
		t.Fatalf("%d bytes", len(in))
	}
	const input = "interrupt\n\x00\xff and more"
	var a answers
	s := server(map[remote.Do]session.Handler{remote.Exec: func(ctx context.Context, c session.Call) error {
		if c.Args[0] != r.Args[0] {
			t.Error("another request")
		}
		_, err := io.Copy(c.Stdout, c.Stdin)
		return errors.Join(err, context.Cause(ctx))
	}})
	if code := s.Serve(t.Context(), strings.NewReader(in+input), &a.out, &a.errs); code != 0 {
		t.Fatalf("%d: %q", code, a.errs.String())
	}
	if got := strings.TrimPrefix(a.out.String(), remote.Greeting); got != input {
		t.Errorf("got %q", got)
	}
}

func TestServe_Endings(t *testing.T) {
	for _, test := range []struct {
		err  error
		want remote.Ending
	}{
		{nil, remote.Ending{}},
		{session.Exit(0), remote.Ending{}},
		{session.Exit(255), remote.Ending{Code: 255}},
		{fmt.Errorf("upgrade: %w", fault.New(fault.ErrLocked, "wait", "alice has it")), remote.Ending{Code: 7, Error: "upgrade: alice has it", Hint: "wait"}},
		{errors.New("odd"), remote.Ending{Code: 1, Error: "odd"}},
	} {
		var a answers
		s := server(map[remote.Do]session.Handler{remote.Observe: func(context.Context, session.Call) error { return test.err }})
		code := s.Serve(t.Context(), strings.NewReader(line(t, remote.Request{Do: remote.Observe})), &a.out, &a.errs)
		if e := a.ending(t); e != test.want || code != e.Code {
			t.Errorf("%v: %d, %+v", test.err, code, e)
		}
	}
}

// The lock is asked for before anything is done.
func TestServe_AsksForTheLock(t *testing.T) {
	for _, held := range []bool{true, false} {
		done := false
		s := server(map[remote.Do]session.Handler{remote.Command: func(context.Context, session.Call) error { done = true; return nil }})
		s.Holds = func(_ context.Context, r remote.Request) error {
			if r.Hold != "token" || r.Service != "shop" {
				t.Errorf("asked for %+v", r)
			}
			if held {
				return nil
			}
			return fault.New(fault.ErrLocked, "", "lost")
		}
		var a answers
		code := s.Serve(t.Context(), strings.NewReader(line(t, remote.Request{Do: remote.Command, Service: "shop", Hold: "token"})), &a.out, &a.errs)
		if done != held || (code == 7) == held {
			t.Errorf("held %t: done %t, code %d", held, done, code)
		}
	}
}

// waiting serves requests of the kind that wait for the end of their context,
// and tells by its cause.
func waiting(do remote.Do) *session.Server {
	return server(map[remote.Do]session.Handler{do: func(ctx context.Context, c session.Call) error {
		fmt.Fprintln(c.Stdout, "waits")
		<-ctx.Done()
		return context.Cause(ctx)
	}})
}

func TestServe_Interrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		var a answers
		code := make(chan int)
		go func() { code <- waiting(remote.Command).Serve(t.Context(), in, &a.out, &a.errs) }()
		write := func(s string) {
			if _, err := io.WriteString(feed, s); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		write(line(t, remote.Request{Do: remote.Command}))
		write("what is not known\n" + strings.Repeat("x", 100) + "\n")
		time.Sleep(time.Hour)
		select {
		case c := <-code:
			t.Fatalf("it ended: %d", c)
		default:
		}
		write(remote.Interrupt + "\n")
		if c := <-code; c != 130 {
			t.Errorf("code %d", c)
		}
		_ = feed.Close()
	})
}

// A connection that is cut is no interruption: what was begun goes on.
func TestServe_EndOfInputIsNoInterruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		var a answers
		code := make(chan int)
		go func() {
			code <- waiting(remote.Migrate).Serve(ctx, strings.NewReader(line(t, remote.Request{Do: remote.Migrate})), &a.out, &a.errs)
		}()
		time.Sleep(time.Hour)
		select {
		case c := <-code:
			t.Fatalf("it ended: %d", c)
		default:
		}
		cancel(fault.ErrInterrupted) // as by SIGTERM
		if c := <-code; c != 130 {
			t.Errorf("code %d", c)
		}
	})
}

func TestServe_HoldEnds(t *testing.T) {
	for _, test := range []struct {
		name  string
		beats int
		close bool
		after time.Duration
		says  error
	}{
		{"with the input", 3, true, 3 * remote.BeatEvery, remote.ErrGone},
		{"when nothing is said", 3, false, 3*remote.BeatEvery + remote.BeatLost, remote.ErrSilent},
		{"when nothing was ever said", 0, false, remote.BeatLost, remote.ErrSilent},
		{"and not while it is said", 1000, true, 1000 * remote.BeatEvery, remote.ErrGone},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, feed := io.Pipe()
				var a answers
				start := time.Now()
				go func() {
					_, _ = io.WriteString(feed, line(t, remote.Request{Do: remote.Hold}))
					for range test.beats {
						time.Sleep(remote.BeatEvery)
						_, _ = io.WriteString(feed, "beat\n")
					}
					if test.close {
						_ = feed.Close()
					}
				}()
				waiting(remote.Hold).Serve(t.Context(), in, &a.out, &a.errs)
				if e := a.ending(t); e.Error != test.says.Error() || time.Since(start) != test.after {
					t.Errorf("%q after %s", e.Error, time.Since(start))
				}
				_ = feed.Close()
			})
		})
	}
}

// The word to take a lock comes between the beats, and counts as one.
func TestServe_TakeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		var a answers
		var taken time.Duration
		start := time.Now()
		go func() {
			_, _ = io.WriteString(feed, line(t, remote.Request{Do: remote.Hold, Attend: true}))
			for _, text := range []string{"beat\n", "beat\n", remote.Take + "\n", remote.Take + "\n"} {
				time.Sleep(remote.BeatLost - time.Second)
				_, _ = io.WriteString(feed, text)
			}
			_ = feed.Close()
		}()
		s := server(map[remote.Do]session.Handler{remote.Hold: func(ctx context.Context, c session.Call) error {
			select {
			case <-c.Take:
				taken = time.Since(start)
			case <-ctx.Done():
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		s.Serve(t.Context(), in, &a.out, &a.errs)
		if e := a.ending(t); e.Error != remote.ErrGone.Error() || taken != 3*(remote.BeatLost-time.Second) {
			t.Errorf("%q, taken after %s", e.Error, taken)
		}
	})
}

func TestServe_RequestThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		var a answers
		if code := server(nil).Serve(t.Context(), in, &a.out, &a.errs); code != 2 {
			t.Errorf("code %d", code)
		}
		if e := a.ending(t); e.Error != "read request: none has come within 30s" {
			t.Errorf("%+v", e)
		}
		_ = feed.Close()
	})
}

// One who follows a log writes seldom; that nobody reads is found out all the
// same.
func TestServe_ReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	in, feed := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- waiting(remote.Exec).Serve(t.Context(), in, w, &errs) }()
	_, _ = io.WriteString(feed, line(t, remote.Request{Do: remote.Exec}))
	b := make([]byte, 1024)
	for got := ""; !strings.HasSuffix(got, "waits\n"); {
		n, err := r.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b[:n])
	}
	_ = r.Close()
	select {
	case <-code:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if !strings.Contains(errs.String(), remote.ErrGone.Error()) {
		t.Errorf("%q", errs.String())
	}
	_ = feed.Close()
}

// A connection that is cut without a word takes nothing any more, and holds
// nothing up.
func TestServe_GoesOnWhenNothingIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unread, stdout := io.Pipe()
		unsaid, stderr := io.Pipe()
		go func() { // the greetings pass
			_, _ = io.ReadFull(unread, make([]byte, len(remote.Greeting)))
			_, _ = io.ReadFull(unsaid, make([]byte, len(remote.Greeting)))
		}()
		done := false
		s := server(map[remote.Do]session.Handler{remote.Migrate: func(ctx context.Context, c session.Call) error {
			for range 1000 {
				_, _ = io.WriteString(c.Stdout, "line\n")
				_, _ = io.WriteString(c.Stderr, "line\n")
			}
			done = ctx.Err() == nil
			return nil
		}})
		start := time.Now()
		code := s.Serve(t.Context(), strings.NewReader(line(t, remote.Request{Do: remote.Migrate})), stdout, stderr)
		if took := time.Since(start); code != 0 || !done || took != 2*time.Minute {
			t.Errorf("%d, %t, after %s", code, done, took)
		}
		_, _ = unread.Close(), unsaid.Close()
	})
}
