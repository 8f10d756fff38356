package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) upgrade() *cobra.Command {
	var id, revision string
	var plan, skip bool
	cmd := &cobra.Command{
		Use:   "upgrade --id ID --revision REV",
		Short: "Bring a service to a revision, without dropping a request",
		Long: `Starts instances of the revision, waits until they are healthy, routes requests
to them, and only then takes the instances before away. If the revision is not
good, what ran before runs on and the exit code is 5.

Running it again is safe: it goes on from where things are. With the revision
that already runs, it applies what has changed in the definition.`,
		Example: "conductor service upgrade --id shop --revision v2",
		Args:    a.needs("id", "revision"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plan {
				return a.plan(cmd.Context(), id, revision, Core.PlanUpgrade)
			}
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Upgrade(ctx, converge.UpgradeRequest{Service: id, Revision: revision, SkipBefore: skip})
			})
		},
	}
	a.idFlag(cmd, &id)
	revisionFlag(cmd, &revision, "the `REV` to run: a tag of the image, a commit")
	cmd.Flags().BoolVar(&skip, "skip-before", false, "do not run upgrade.before: it is done elsewhere, once for several hosts")
	planFlag(cmd, &plan)
	a.reasonFlag(cmd)
	return cmd
}

// revisionFlag adds --revision. Nothing can be offered for it: what a registry
// has is not known here.
func revisionFlag(cmd *cobra.Command, revision *string, usage string) {
	cmd.Flags().StringVar(revision, "revision", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("revision", cobra.NoFileCompletions)
}

func planFlag(cmd *cobra.Command, plan *bool) {
	cmd.Flags().BoolVar(plan, "plan", false, "print the steps with their causes, and change nothing")
}
