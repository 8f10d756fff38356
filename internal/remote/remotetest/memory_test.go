package remotetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	Suite(t, func(t *testing.T) World {
		m := New(Far)
		m.Set("nowhere", Fault{Unreachable: true})
		ctx, end := context.WithCancel(context.Background())
		m.serve = func(far context.Context, h remote.Host, r remote.Request, s remote.Streams) error {
			far, stop := context.WithCancel(far) // what was cut off ends with the test
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			return Far(far, h, r, s)
		}
		t.Cleanup(func() {
			end()
			m.Wait()
		})
		host := remote.Host{Name: "web1", SSH: "deploy@web1"}
		return World{Transport: m, Host: host, Nowhere: remote.Host{Name: "nowhere", SSH: "nowhere"}, Cut: func() { m.Cut("web1") }}
	})
}

func TestMemory_Faults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Far)
		host := remote.Host{Name: "web1", SSH: "web1"}
		say := remote.Request{Do: remote.Command, Args: []string{"say", "twelve bytes", ""}}

		m.Set("web1", Fault{Delay: time.Hour})
		start := time.Now()
		if err := m.Do(t.Context(), host, say, remote.Streams{}); err != nil || time.Since(start) != time.Hour {
			t.Errorf("delay: %v after %s", err, time.Since(start))
		}

		m.Set("web1", Fault{Hang: true})
		start = time.Now()
		if err := m.Do(t.Context(), host, say, remote.Streams{}); !errors.Is(err, remote.ErrCut) || time.Since(start) != aliveTimeout {
			t.Errorf("hang: %v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, fault.ErrTimeout)
		defer cancel()
		if err := m.Do(ctx, host, say, remote.Streams{}); !errors.Is(err, fault.ErrTimeout) {
			t.Errorf("hang, with less time: %v", err)
		}

		m.Set("web1", Fault{CutAfter: 6})
		var out strings.Builder
		if err := m.Do(t.Context(), host, say, remote.Streams{Stdout: &out}); !errors.Is(err, remote.ErrCut) || out.String() != "twelve" {
			t.Errorf("cut: %v, %q", err, out.String())
		}

		m.Set("web1", Fault{})
		if err := m.Do(t.Context(), host, say, remote.Streams{}); err != nil {
			t.Errorf("well again: %v", err)
		}
		if n := m.Sessions(); n != 3 {
			t.Errorf("%d sessions began, want 3", n)
		}
		m.Wait()
	})
}
