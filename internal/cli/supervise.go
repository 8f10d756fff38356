package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/fault"
)

func (a *app) supervise() *cobra.Command {
	var pause, resume, listen string
	cmd := &cobra.Command{
		Use:   "supervise",
		Short: "Keep all services at their goals",
		Long: `Looks after all services until it is ended: what dies is replaced at once, and
then every 5 seconds at most; what is alive and fails its check is replaced by
what passes it. It does what converge does, whenever there is something to do.

When it ends, by a signal, everything that runs runs on. A service that was
stopped stays stopped. --pause leaves one service to you, until --resume.

It can be watched: /run/conductor/NAMESPACE.sock, which root alone can use, has
/v1/status, /v1/events, /metrics for Prometheus and /healthz. With --listen the
last two are also at an address.`,
		Example: "conductor supervise --listen 127.0.0.1:9321",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case pause != "" && resume != "":
				return usageError("one after the other", "--pause and --resume cannot be had together")
			case pause+resume != "":
				return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
					return c.Pause(ctx, pause+resume, pause != "")
				})
			}
			return a.superviseAll(cmd.Context(), listen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&pause, "pause", "", "leave the service of this `ID` to you")
	f.StringVar(&resume, "resume", "", "look after the service of this `ID` again")
	f.StringVar(&listen, "listen", "", "have /metrics and /healthz at this `ADDRESS` too, such as 127.0.0.1:9321")
	for _, name := range []string{"pause", "resume"} {
		_ = cmd.RegisterFlagCompletionFunc(name, a.completeIDs)
	}
	return cmd
}

// superviseAll runs until it is told to end, which is its good end.
func (a *app) superviseAll(ctx context.Context, listen string) error {
	d := a.display()
	p, _, err := a.open(ctx, d.Event)
	defer p.close()
	if err != nil {
		return err
	}
	if err := p.Supervise(ctx, listen); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, fault.ErrInterrupted) {
		return ended(ctx, ctx.Err())
	}
	a.say("supervision has ended; everything that runs runs on")
	return nil
}
