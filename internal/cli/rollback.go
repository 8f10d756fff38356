package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) rollback() *cobra.Command {
	var id, revision string
	var plan bool
	cmd := &cobra.Command{
		Use:   "rollback --id ID [--revision REV]",
		Short: "Bring back the release that served before",
		Long: `Brings back the last release that served before this one, with the container
part of the definition that it had then. Again, it goes one release further
back. With --revision, it brings back the newest kept release of that revision;
"service status" names those that are kept.`,
		Example: "conductor service rollback --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plan {
				return a.plan(cmd.Context(), id, revision, Core.PlanRollback)
			}
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Rollback(ctx, id, revision)
			})
		},
	}
	a.idFlag(cmd, &id)
	revisionFlag(cmd, &revision, "the `REV` to go back to (default the one before)")
	planFlag(cmd, &plan)
	a.reasonFlag(cmd)
	return cmd
}
