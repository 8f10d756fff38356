package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) remove() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "remove --id ID",
		Short: "Stop a service and forget it",
		Long: `Un-routes, drains and stops the service's instances, and removes all that
Conductor keeps of it: containers, route, goal, names of images. Its definition
and its history stay.`,
		Example: "conductor service remove --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Remove(ctx, id)
			})
		},
	}
	a.idFlag(cmd, &id)
	return cmd
}
