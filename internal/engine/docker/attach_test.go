package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
)

// hijack takes the connection out of HTTP, as the engine does.
func hijack(t *testing.T, w http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	return conn, rw
}

func TestEngine_AttachStreams(t *testing.T) {
	state, seen := "created", make(chan string, 1)
	e := speak(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/json") {
			fmt.Fprintf(w, `{"Id":"x","State":{"Status":%q}}`, state)
			return
		}
		conn, rw := hijack(t, w)
		defer conn.Close()
		fmt.Fprint(conn, "\x01\x00\x00\x00\x00\x00\x00\x03out\x02\x00\x00\x00\x00\x00\x00\x03err")
		if state == "created" {
			in, _ := io.ReadAll(rw) // until our side is half closed
			seen <- string(in)
		}
		fmt.Fprint(conn, "\x01\x00\x00\x00\x00\x00\x00\x04 end")
	})
	var out, errs strings.Builder
	attached := 0
	s := engine.Streams{Stdin: strings.NewReader("typed"), Stdout: &out, Stderr: &errs}
	if err := e.Attach(t.Context(), "x", s, func() { attached++ }); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "typed" || out.String() != "out end" || errs.String() != "err" || attached != 1 {
		t.Errorf("stdin %q, stdout %q, stderr %q, attached %d times", got, out.String(), errs.String(), attached)
	}
	state = "exited"
	if err := e.Attach(t.Context(), "x", engine.Streams{}, func() { t.Error("attached") }); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("to one that has ended: %v", err)
	}
}

// The client tells the status of a refusal, and nothing more.
func TestEngine_RefusedStreams(t *testing.T) {
	for status, want := range map[int]error{
		404: engine.ErrNotFound, 409: engine.ErrConflict, 503: engine.ErrUnreachable,
	} {
		e := speak(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/exec") {
				fmt.Fprint(w, `{"Id":"made"}`)
				return
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"message":"no"}`)
		})
		err := e.Attach(t.Context(), "x", engine.Streams{}, func() { t.Error("attached") })
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "attach to container x") {
			t.Errorf("%d: attach: %v", status, err)
		}
		if _, err := e.Exec(t.Context(), "x", engine.Exec{Command: []string{"true"}}); !errors.Is(err, want) {
			t.Errorf("%d: exec: %v", status, err)
		}
	}
}

// An engine that goes away has told no code.
func TestEngine_WaitCutOff(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"cut":      func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"ended":    func(http.ResponseWriter) {},
		"half":     func(w http.ResponseWriter) { fmt.Fprint(w, `{"StatusCode":`) },
		"gives up": func(w http.ResponseWriter) { fmt.Fprint(w, `{"StatusCode":-1,"Error":{"Message":"context canceled"}}`) },
	} {
		e := speak(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/json") {
				fmt.Fprint(w, `{"Id":"x","State":{"Status":"running"}}`)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			answer(w)
		})
		if code, err := e.Wait(t.Context(), "x"); !errors.Is(err, engine.ErrUnreachable) || code != 0 {
			t.Errorf("%s: code %d, %v", name, code, err)
		}
	}
}

func TestPassSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sizes, done := make(chan [2]uint), make(chan struct{})
		var taken [][2]uint
		var refuse atomic.Bool
		var calls atomic.Int32
		refuse.Store(true)
		go func() {
			defer close(done)
			passSizes(ctx, sizes, func(_ context.Context, s [2]uint) error {
				if calls.Add(1); refuse.Load() {
					return engine.ErrConflict
				}
				taken = append(taken, s)
				return nil
			})
		}()
		sizes <- [2]uint{80, 24}
		sizes <- [2]uint{100, 30}
		time.Sleep(2 * time.Second) // a start that is slow
		refuse.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(taken) != 1 || taken[0] != [2]uint{100, 30} {
			t.Errorf("taken %v, want the last size, once", taken)
		}
		refuse.Store(true)
		calls.Store(0)
		sizes <- [2]uint{1, 1}
		time.Sleep(time.Hour)
		if n := calls.Load(); n != resizeTries {
			t.Errorf("a size that is never taken was tried %d times, want %d", n, resizeTries)
		}
		close(sizes)
		synctest.Wait()
		cancel()
		<-done
	})
}
