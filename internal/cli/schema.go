package cli

import (
	"github.com/spf13/cobra"

	"conductor/internal/spec"
)

func (a *app) schema() *cobra.Command {
	kinds := []string{"service", "config"}
	return &cobra.Command{
		Use:   "schema [service|config]",
		Short: "Print the JSON Schema of definitions, for editors",
		Long: `Prints the JSON Schema of a service's definition, or of conductor.yml. An editor
that knows it completes keys and marks mistakes:

  conductor schema > /etc/conductor/service.schema.json
  # yaml-language-server: $schema=/etc/conductor/service.schema.json`,
		Example:   "conductor schema service",
		ValidArgs: kinds,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("one of: service, config", "schema takes one word, not %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			kind := "service"
			if len(args) == 1 {
				kind = args[0]
			}
			if kind != "service" && kind != "config" {
				return usageError("one of: service, config", "there is no schema of %q", kind)
			}
			b, err := spec.Schema(kind)
			if err != nil {
				return err
			}
			_, err = a.answerTo.Write(b)
			return err
		},
	}
}
