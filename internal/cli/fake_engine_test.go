package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/proxy"
)

// fakeEngine has a container for each instance of the fakeHost. What no
// command of this package uses is nil in it.
type fakeEngine struct {
	engine.Engine
	host *fakeHost
}

func (e *fakeEngine) Info(context.Context) (engine.Info, error) {
	if e.host.wrong == "engine" {
		return engine.Info{}, fmt.Errorf("dial unix:///var/run/docker.sock: %w", engine.ErrUnreachable)
	}
	return engine.Info{Name: "Docker", Version: "20.10.24", APIVersion: "1.41", Endpoint: "unix:///var/run/docker.sock", RootDir: "/"}, nil
}

func (e *fakeEngine) List(_ context.Context, labels map[string]string, _ ...string) ([]engine.Container, error) {
	if e.host.wrong == "engine" {
		return nil, engine.ErrUnreachable
	}
	var cs []engine.Container
	for id, s := range e.host.Services {
		if want := labels[converge.LabelService]; want != "" && want != id {
			continue
		}
		for slot := range e.host.replicas(id) {
			c := engine.Container{
				ID: fmt.Sprintf("%s-%d", id, slot+1), Name: instanceName(id, s.Revision, slot+1),
				State: engine.Running, Address: netip.MustParseAddr("127.0.0.2"),
				Created: time.Date(2026, 1, 1, 12, 0, slot, 0, time.UTC),
			}
			if s.Stopped {
				c.State = engine.Exited
			}
			cs = append(cs, c)
		}
	}
	slices.SortFunc(cs, func(a, b engine.Container) int { return strings.Compare(a.Name, b.Name) })
	return cs, nil
}

// Logs has three lines of each instance, a second apart, the slots in turn.
func (e *fakeEngine) Logs(ctx context.Context, id string, o engine.LogOptions, stdout, stderr io.Writer) error {
	slot := int(id[len(id)-1] - '0')
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	first := 0
	if o.Tail > 0 {
		first = max(3-o.Tail, 0)
	}
	for i := first; i < 3; i++ {
		at := begin.Add(time.Duration(i)*time.Second + time.Duration(slot)*100*time.Millisecond)
		if at.Before(o.Since) {
			continue
		}
		w, text := stdout, fmt.Sprintf("request %d", i+1)
		if i == 2 {
			w, text = stderr, "\x1b[31mwarning\x1b[0m"
		}
		if _, err := fmt.Fprintf(w, "%s %s\n", at.Format(time.RFC3339Nano), text); err != nil {
			return err
		}
	}
	if o.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (e *fakeEngine) Events(ctx context.Context, _ map[string]string, ready func(), f func(engine.Event)) error {
	ready()
	f(engine.Event{Action: "start", ID: "shop-9", Name: "shop.v2.1a2b-9-1"})
	<-ctx.Done()
	return ctx.Err()
}

// Exec is a container with a small world of commands.
func (e *fakeEngine) Exec(_ context.Context, _ string, x engine.Exec) (int, error) {
	switch x.Command[0] {
	case "cat":
		_, err := io.Copy(x.Stdout, x.Stdin)
		return 0, err
	case "echo":
		_, err := fmt.Fprintln(x.Stdout, strings.Join(x.Command[1:], " "))
		return 0, err
	case "complain":
		_, err := fmt.Fprintln(x.Stderr, "it hurts")
		return 3, err
	case "tty":
		size := [2]uint{}
		if x.Resize != nil {
			size = <-x.Resize
		}
		_, err := fmt.Fprintf(x.Stdout, "tty=%t size=%d\n", x.TTY, size)
		return 0, err
	}
	return 0, fmt.Errorf("%q: %w", x.Command[0], engine.ErrCannotRun)
}

// fakeProxy serves what it is given.
type fakeProxy struct{ wrong string }

func (p fakeProxy) Check(context.Context, proxy.Table) error {
	if p.wrong == "proxy" || os.Getenv("HOST") == "proxy" {
		return proxy.ErrUnreachable
	}
	return nil
}

func (p fakeProxy) Apply(context.Context, proxy.Table) (proxy.Change, error) {
	return proxy.Change{}, nil
}

func (p fakeProxy) Observe(context.Context) (proxy.Observed, error) {
	return proxy.Observed{Routes: true}, nil
}
