package cli

import "github.com/spf13/cobra"

func (a *app) service() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "service",
		Short: "Upgrade, roll back, look at and change services",
	})
	cmd.AddCommand(a.upgrade(), a.rollback(), a.status(), a.list(), a.history(), a.logs(), a.exec(),
		a.stopCmd(), a.startCmd(), a.restart(), a.scale(), a.remove())
	return cmd
}
