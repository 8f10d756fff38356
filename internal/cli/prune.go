package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) prune() *cobra.Command {
	var ids []string
	cmd := &cobra.Command{
		Use:   "prune [--id ID]",
		Short: "Let go of images that no service needs",
		Long: `Takes Conductor's names off the images of releases that no goal needs any more:
not the current one, nor those kept for rollback. It never forces: an image that
has another name, or a container, stays.`,
		Example: "conductor prune",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.act(cmd.Context(), func(ctx context.Context, c Core) ([]converge.Outcome, error) {
				return c.Prune(ctx, ids...)
			})
		},
	}
	a.idsFlag(cmd, &ids)
	return cmd
}
