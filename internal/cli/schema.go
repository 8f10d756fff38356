package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"conductor/internal/spec"
)

func (a *app) schema() *cobra.Command {
	kinds := []string{"service", "config", "fleet"}
	return &cobra.Command{
		Use:   "schema [service|config|fleet]",
		Short: "Print the JSON Schema of definitions, for editors",
		Long: `Prints the JSON Schema of a service's definition, of conductor.yml or of
fleet.yml. An editor that knows it completes keys and marks mistakes:

  conductor schema > /etc/conductor/service.schema.json
  # yaml-language-server: $schema=/etc/conductor/service.schema.json`,
		Example:   "conductor schema service",
		ValidArgs: kinds,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("one of: "+strings.Join(kinds, ", "), "schema takes one word, not %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			kind := "service"
			if len(args) == 1 {
				kind = args[0]
			}
			if !slices.Contains(kinds, kind) {
				return usageError("one of: "+strings.Join(kinds, ", "), "there is no schema of %q", kind)
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
