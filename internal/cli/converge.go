package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) convergeCmd() *cobra.Command {
	var ids []string
	cmd := &cobra.Command{
		Use:   "converge [--id ID]",
		Short: "One pass that brings services to their goals",
		Long: `Brings every service to its goal: replaces what has died, routes what is
healthy, applies what has changed in policies. For after a boot, and from
configuration management. It upgrades nothing: a definition's container part is
applied by the next upgrade.`,
		Example: "conductor converge",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.act(cmd.Context(), func(ctx context.Context, c Core) ([]converge.Outcome, error) {
				return c.Converge(ctx, ids...)
			})
		},
	}
	a.idsFlag(cmd, &ids)
	return cmd
}
