package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) stopCmd() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "stop --id ID",
		Short: "Take a service out of the proxy and stop it",
		Long: `Un-routes the service's instances, lets their requests finish, and stops them.
Its route answers 503 until start or an upgrade takes that back.`,
		Example: "conductor service stop --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Stop(ctx, id)
			})
		},
	}
	a.idFlag(cmd, &id)
	return cmd
}
