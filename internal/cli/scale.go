package cli

import (
	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
)

func (a *app) scale() *cobra.Command {
	var id string
	var replicas replicasFlag
	cmd := &cobra.Command{
		Use:   "scale --id ID --replicas N|definition",
		Short: "Change the number of a service's instances",
		Long: `Sets the number of instances, in place of the definition's replicas, until
"scale --replicas definition" takes that back.`,
		Example: "conductor service scale --id shop --replicas 4",
		Args:    a.needs("id", "replicas"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
				return c.Scale(ctx, id, replicas.n)
			})
		},
	}
	a.idFlag(cmd, &id)
	cmd.Flags().Var(&replicas, "replicas", "how many: `N`, or the word definition")
	_ = cmd.RegisterFlagCompletionFunc("replicas", cobra.FixedCompletions([]string{"definition"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
