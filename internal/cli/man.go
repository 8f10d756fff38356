package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"conductor/internal/fault"
)

// man is for those who package this program.
func (a *app) man(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages of all commands into a folder",
		Example: "conductor man man1",
		Hidden:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("for example: conductor man man1", "man needs a folder")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return writeMan(root, args[0])
		},
	}
}

// writeMan writes the pages of a command and of all below it.
func writeMan(cmd *cobra.Command, dir string) (err error) {
	manuals(cmd, func(page, text string) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, page+".1"), []byte(text), 0o644)
		}
	})
	if err != nil {
		return fault.New(fault.ErrHost, "", "write manual page: %w", err)
	}
	return nil
}

// manuals gives the manual pages of a command and of all below it, by their names.
func manuals(cmd *cobra.Command, each func(page, text string)) {
	each(page(cmd), manual(cmd))
	for _, c := range below(cmd) {
		manuals(c, each)
	}
}

// page is the name of a command's page: conductor-service-upgrade.
func page(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func below(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() })
}

// manual is what --help says, as a page for man.
func manual(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(name string) { fmt.Fprintf(&b, ".SH %s\n", name) }
	example := func(text string) { fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(text)) }

	fmt.Fprintf(&b, ".TH %s 1 \"\" \"Conductor\" \"Conductor\"\n", roff(strings.ToUpper(page(cmd))))
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(page(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	fmt.Fprintf(&b, ".B %s\n", roff(cmd.UseLine()))
	if cmd.Long != "" {
		section("DESCRIPTION")
		for paragraph := range strings.SplitSeq(cmd.Long, "\n\n") {
			if strings.HasPrefix(paragraph, " ") {
				example(paragraph)
			} else {
				fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
			}
		}
	}
	if cs := below(cmd); len(cs) > 0 {
		section("COMMANDS")
		for _, c := range cs {
			fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(page(c)), roff(c.Short))
		}
	}
	section("OPTIONS")
	for _, flags := range []*pflag.FlagSet{cmd.NonInheritedFlags(), cmd.InheritedFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			value, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR \\fI%s\\fR\n%s\n", roff(name), roff(value), roff(usage))
		})
	}
	if cmd.Example != "" {
		section("EXAMPLE")
		example(cmd.Example)
	}
	if cmd.HasParent() {
		section("SEE ALSO")
		fmt.Fprintf(&b, ".BR %s (1)\n", roff(page(cmd.Parent())))
	}
	return b.String()
}

// A terminal of ASCII has no "…".
var roffed = strings.NewReplacer("…", "...", `\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'")

// roff has text stand for itself.
func roff(text string) string {
	s := roffed.Replace("\n" + text)
	return s[1:]
}
