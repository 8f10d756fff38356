package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// group makes cmd a command that only has others below it. It reads its
// arguments itself: in "conductor upgrade --id shop" the word is wrong, not
// the flag.
func (a *app) group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.DisableFlagParsing = !a.completing
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.flagsRead = false
		for i := 0; i < len(args); i++ {
			arg := args[i]
			switch {
			case arg == "-h" || arg == "--help":
				return cmd.Help()
			case arg == "--version" || arg == "-v":
				return usageError("did you mean: conductor version?", "%s has no flag %s", name(cmd), arg)
			case arg == "--":
			case strings.HasPrefix(arg, "-"):
				flag, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
				f := cmd.Root().PersistentFlags().Lookup(flag)
				if f == nil {
					return flagError(cmd, cmd.Root().PersistentFlags().Parse([]string{arg}))
				}
				if !hasValue {
					i++
				}
			default:
				return unknownCommand(cmd, arg)
			}
		}
		if !cmd.HasParent() {
			return cmd.Help()
		}
		return usageError("one of: "+strings.Join(commands(cmd), ", "), "%s needs a command", cmd.CommandPath())
	}
	return cmd
}

func commands(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// unknownCommand says what was probably meant: a command of this group, else
// one of the same name elsewhere (conductor upgrade).
func unknownCommand(cmd *cobra.Command, word string) error {
	hint := "see " + cmd.CommandPath() + " --help"
	below := commands(cmd)
	if n := nearest(word, below); n != "" {
		hint = "did you mean: " + cmd.CommandPath() + " " + n + "?"
	} else if path := elsewhere(cmd.Root(), word); path != "" {
		hint = "did you mean: " + path + "?"
	}
	return usageError(hint, "%s has no command %q", cmd.CommandPath(), word)
}

func elsewhere(cmd *cobra.Command, word string) string {
	names := commands(cmd)
	if n := nearest(word, names); n != "" && (n == word || !slices.Contains(names, word)) {
		return cmd.CommandPath() + " " + n
	}
	for _, c := range cmd.Commands() {
		if path := elsewhere(c, word); path != "" {
			return path
		}
	}
	return ""
}
