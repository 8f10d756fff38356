package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) startCmd() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:     "start --id ID",
		Short:   "Start a service that was stopped",
		Long:    `Runs the release that ran when the service was stopped.`,
		Example: "conductor service start --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Start(ctx, id)
			})
		},
	}
	a.idFlag(cmd, &id)
	return cmd
}
