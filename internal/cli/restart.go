package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) restart() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "restart --id ID",
		Short: "Replace a service's instances, without dropping a request",
		Long: `Replaces every instance by a new one of the same release, in the order that the
definition's upgrade.order says.`,
		Example: "conductor service restart --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Restart(ctx, id)
			})
		},
	}
	a.idFlag(cmd, &id)
	return cmd
}
