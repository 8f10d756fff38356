package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/fault"
)

// logRequest is what logs was asked for.
type logRequest struct {
	id       string
	instance string
	follow   bool
	tail     int // lines of each instance; 0: all
	since    time.Time
	times    bool
}

func (a *app) logs() *cobra.Command {
	var r logRequest
	tail := tailFlag{&r.tail}
	since := sinceFlag{now: a.start}
	cmd := &cobra.Command{
		Use:   "logs --id ID [-f]",
		Short: "Show what a service's instances have written",
		Long: `Shows the logs of the live instances, in the order of time, each line after the
name of its instance where there are several. With none live, it shows the log
of the one that died last. With -f it goes on as lines come, also those of
instances that start meanwhile, until Ctrl-C.

With --output json each line is an object: time, instance, stream, line.`,
		Example: "conductor service logs --id shop --tail 100 -f",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.since = since.t
			p, s, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			err = a.showLogs(cmd.Context(), p.Engine, s, r)
			if r.follow && errors.Is(err, fault.ErrInterrupted) {
				return exitCode(Code(err)) // how one leaves: nothing to be told
			}
			return err
		},
	}
	a.idFlag(cmd, &r.id)
	f := cmd.Flags()
	f.BoolVarP(&r.follow, "follow", "f", false, "go on as lines come")
	f.Var(&tail, "tail", "only the last `N` lines of each instance, or all (default all)")
	f.Var(&since, "since", "only lines since a `TIME` ago (10m), or a date and time")
	f.StringVar(&r.instance, "instance", "", "only the instance of this `NAME`, live or dead")
	f.BoolVarP(&r.times, "timestamps", "t", false, "show the time of each line")
	return cmd
}

// tailFlag is --tail.
type tailFlag struct{ n *int }

func (f *tailFlag) String() string { return "" }
func (f *tailFlag) Type() string   { return "n" }
func (f *tailFlag) Set(s string) error {
	if s == "all" {
		*f.n = 0
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("it is a number from 1, or the word all")
	}
	*f.n = n
	return nil
}

func (a *app) showLogs(ctx context.Context, e engine.Engine, s Setup, r logRequest) error {
	labels := map[string]string{
		converge.LabelNamespace: s.Config.Namespace, converge.LabelService: r.id, converge.LabelKind: converge.KindService,
	}
	all, err := e.List(ctx, labels)
	if err != nil {
		return fmt.Errorf("show the logs of %s: %w", r.id, err)
	}
	if len(all) == 0 {
		if _, err := s.Definitions.Get(r.id); err != nil {
			return err
		}
	}
	chosen, err := chooseLogs(all, r)
	if err != nil {
		return err
	}
	if len(chosen) == 0 && !r.follow {
		a.warn(r.id + " has no instances, and so no logs")
		return nil
	}
	if len(chosen) == 1 && r.instance == "" && chosen[0].State != engine.Running {
		a.warn("no instance of " + r.id + " is live; this is the log of the last one, " + chosen[0].Name)
	}
	out := a.logWriter(r, chosen)
	if !r.follow {
		return mergeLogs(ctx, e, chosen, r, out)
	}
	if r.instance != "" {
		labels = nil // nothing new comes with that name
	}
	return followLogs(ctx, e, chosen, r, labels, out)
}

// chooseLogs picks the containers whose logs are wanted: the one that was
// named, else those that live, else the one made last.
func chooseLogs(all []engine.Container, r logRequest) ([]engine.Container, error) {
	if r.instance != "" {
		var names []string
		for _, c := range all {
			if c.Name == r.instance || len(r.instance) >= 12 && len(c.ID) >= len(r.instance) && c.ID[:len(r.instance)] == r.instance {
				return []engine.Container{c}, nil
			}
			names = append(names, c.Name)
		}
		return nil, unknownInstance(r.id, r.instance, names)
	}
	var live []engine.Container
	var last engine.Container
	for _, c := range all {
		if c.State == engine.Running || c.State == engine.Paused {
			live = append(live, c)
		} else if last.ID == "" || c.Created.After(last.Created) {
			last = c
		}
	}
	if len(live) == 0 && last.ID != "" {
		return []engine.Container{last}, nil
	}
	return live, nil
}
