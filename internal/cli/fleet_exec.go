package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/remote"
	"conductor/internal/state"
)

func (a *app) fleetExec() *cobra.Command {
	var id string
	var words []string
	cmd := &cobra.Command{
		Use:   "exec --id ID CMD…",
		Short: "Run a command inside an instance of a service on each host",
		Long: `Runs a command inside a live instance of the service on each host, all at once,
as service exec does, and shows what it says with the host's name before each
line. It exits with the first exit code other than 0, in the fleet's order.`,
		Example: "conductor fleet exec --id shop bin/version",
		Args: func(cmd *cobra.Command, args []string) error {
			if missing := a.missing(cmd, []string{"id"}); len(missing) > 0 {
				return a.mustHave(cmd, missing)
			}
			if len(args) == 0 {
				return usageError("for example: "+cmd.Example, "fleet exec needs a command to run")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onEach(cmd.Context(), id, words, append([]string{"service", "exec", "--id", id, "--"}, args...))
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&id, "id", "", "the service's `ID` in fleet.yml")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeFleetIDs)
	a.hostsFlag(cmd, &words)
	return cmd
}

func (a *app) fleetLogs() *cobra.Command {
	var id, since string
	var words []string
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use:     "logs --id ID",
		Short:   "Show the logs of a service on all hosts",
		Long:    `Shows what service logs shows on each host, with the host's name before each line.`,
		Example: "conductor fleet logs --id shop -f",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			args := []string{"service", "logs", "--id", id, fmt.Sprintf("--tail=%d", tail)}
			if follow {
				args = append(args, "-f")
			}
			if since != "" {
				args = append(args, "--since="+since)
			}
			return a.onEach(cmd.Context(), id, words, args)
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "the service's `ID` in fleet.yml")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeFleetIDs)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines come")
	cmd.Flags().StringVar(&since, "since", "", "only what is younger than this `TIME`, such as 10m")
	cmd.Flags().IntVar(&tail, "tail", 100, "at most so many lines of each instance before that: `N`")
	a.hostsFlag(cmd, &words)
	return cmd
}

// onEach has each host do a command of its own, and shows what it says.
func (a *app) onEach(ctx context.Context, id string, words, args []string) error {
	a.answerTo = a.stderr // stdout is the commands'
	p, f, err := a.openFleet(a.display().Event, id, "")
	defer p.close()
	if err != nil {
		return err
	}
	hosts, err := chosen(f, id, words)
	if err != nil {
		return err
	}
	width := 0
	for _, h := range hosts {
		width = max(width, utf8.RuneCountInString(h))
	}
	var mu sync.Mutex
	paint := display.Painter(a.color())
	return each(ctx, hosts, func(ctx context.Context, host string) error {
		label := paint.Dim(fmt.Sprintf("%-*s |", width, host)) + " "
		out, errs := &labelled{mu: &mu, to: a.stdout, label: label}, &labelled{mu: &mu, to: a.stderr, label: label}
		defer out.end()
		defer errs.end()
		err := p.Transport.Do(ctx, p.At[host], a.fleetRequest(remote.Exec, args...), remote.Streams{Stdout: out, Stderr: errs})
		if e, ok := errors.AsType[*remote.ExitError](err); ok { // the command's own; what it says is shown
			errs.end()
			_ = errs.line(fmt.Appendf(nil, "exit code %d", e.Code)) // the reader may be gone
			return exitCode(e.Code)
		}
		return err
	})
}

// labelled writes whole lines with a label before each.
type labelled struct {
	mu    *sync.Mutex
	to    io.Writer
	label string
	part  []byte
}

// longLine is from where on a line without an end is broken.
const longLine = 64 << 10

func (l *labelled) Write(b []byte) (int, error) {
	l.part = append(l.part, b...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found && len(l.part) < longLine {
			return len(b), nil
		}
		if !found {
			line, rest = l.part, nil
		}
		if err := l.line(line); err != nil {
			return 0, err
		}
		l.part = append([]byte(nil), rest...)
	}
}

func (l *labelled) line(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintf(l.to, "%s%s\n", l.label, strings.TrimSuffix(string(b), "\r"))
	return err
}

func (l *labelled) end() {
	if len(l.part) > 0 {
		_ = l.line(l.part) // the reader may be gone
		l.part = nil
	}
}

func (a *app) fleetHistory() *cobra.Command {
	var id string
	var words []string
	var limit int
	cmd := &cobra.Command{
		Use:     "history --id ID",
		Short:   "Show who did what with a service on all hosts",
		Long:    `Shows the operations of a service on all hosts together, newest first.`,
		Example: "conductor fleet history --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, f, err := a.openFleet(a.display().Event, id, "")
			defer p.close()
			if err != nil {
				return err
			}
			hosts, err := chosen(f, id, words)
			if err != nil {
				return err
			}
			var mu sync.Mutex
			all := []hostOperation{}
			err = each(cmd.Context(), hosts, func(ctx context.Context, host string) error {
				var ops []state.Operation
				r := a.fleetRequest(remote.Command, "service", "history", "--id", id, fmt.Sprintf("--limit=%d", limit))
				if err := remote.Ask(ctx, p.Transport, p.At[host], r, &ops); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, op := range ops {
					all = append(all, hostOperation{host, op})
				}
				return nil
			})
			slices.SortStableFunc(all, func(x, y hostOperation) int { return y.Started.Compare(x.Started) })
			if a.json() {
				if e := a.document(all); e != nil {
					return e
				}
				return err
			}
			ops := make([]state.Operation, len(all))
			labels := make([]string, len(all))
			for n, o := range all {
				ops[n], labels[n] = o.Operation, o.Host
			}
			t := historyTable(ops, a.start, labels...)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			if e := t.Write(a.answerTo); e != nil {
				return e
			}
			return err
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "the service's `ID` in fleet.yml")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeFleetIDs)
	cmd.Flags().IntVar(&limit, "limit", 20, "show at most `N` operations of each host; 0: all")
	a.hostsFlag(cmd, &words)
	return cmd
}

// hostOperation is an operation in the JSON of fleet history.
type hostOperation struct {
	Host string `json:"host"`
	state.Operation
}
