package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"conductor/internal/display"
	"conductor/internal/fault"
)

func usageError(hint, format string, args ...any) error {
	return fault.New(fault.ErrUsage, hint, format, args...)
}

// outputFlag is --output.
type outputFlag struct{ mode display.Mode }

func (f *outputFlag) String() string { return "" } // the default depends on the terminal
func (f *outputFlag) Type() string   { return "form" }
func (f *outputFlag) Set(s string) (err error) {
	m, err := display.ParseMode(s)
	if err == nil {
		f.mode = m
	}
	return err
}

func modeWords() []string {
	var ws []string
	for _, m := range display.Modes {
		ws = append(ws, string(m))
	}
	return ws
}

// modeIn finds --output among arguments that could not be read to their end.
func modeIn(args []string, mode display.Mode) display.Mode {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		value, ok := strings.CutPrefix(arg, "--output=")
		if !ok && arg == "--output" && i+1 < len(args) {
			value, ok = args[i+1], true
		}
		if m, err := display.ParseMode(value); ok && err == nil {
			mode = m
		}
	}
	return mode
}

// timeoutFlag is --timeout.
type timeoutFlag struct{ d time.Duration }

func (f *timeoutFlag) String() string { return "" }
func (f *timeoutFlag) Type() string   { return "time" }
func (f *timeoutFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return errors.New("a time has a unit, such as 90s or 10m")
	case d <= 0:
		return errors.New("a time is longer than nothing")
	}
	f.d = d
	return nil
}

// replicasFlag is --replicas.
type replicasFlag struct{ n *int }

func (f *replicasFlag) String() string { return "" }
func (f *replicasFlag) Type() string   { return "n" }
func (f *replicasFlag) Set(s string) error {
	if s == "definition" {
		f.n = nil
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return errors.New("it is a number from 0, or the word definition")
	}
	f.n = &n
	return nil
}

// sinceFlag is --since: a time ago, or a point in time.
type sinceFlag struct {
	now time.Time
	t   time.Time
}

func (f *sinceFlag) String() string { return "" }
func (f *sinceFlag) Type() string   { return "time" }
func (f *sinceFlag) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		f.t = f.now.Add(-d)
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			f.t = t
			return nil
		}
	}
	return errors.New("it is a time ago, such as 10m, or a date and time, such as 2026-01-31T15:04:05")
}

// idFlag adds --id, the service that a command is about.
func (a *app) idFlag(cmd *cobra.Command, id *string) {
	cmd.Flags().StringVar(id, "id", "", "the service's `ID`, its file's name without .yml")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeIDs)
}

// reasonFlag adds --reason.
func (a *app) reasonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.reason, "reason", "", "why, for the history: a `TEXT`")
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
}

// idsFlag adds --id, which may be given several times, or not at all for all.
func (a *app) idsFlag(cmd *cobra.Command, ids *[]string) {
	cmd.Flags().StringArrayVar(ids, "id", nil, "only the service of this `ID`; may be repeated (default all)")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeIDs)
}

// completeIDs offers the ids of the definitions, from their files' names: it
// parses none, so that it is there at once and works beside mistakes.
func (a *app) completeIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return a.ids(), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) ids() []string {
	c, err := a.config()
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(c.ServicesDir)
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".yml"); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	return ids
}

// needs returns a check of the arguments of a command that takes flags alone,
// some of which it cannot do without.
func (a *app) needs(flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		missing := a.missing(cmd, flags)
		if len(args) > 0 {
			return usageError(wordHint(cmd, missing, args), "%s takes no argument %q", name(cmd), args[0])
		}
		return a.mustHave(cmd, missing)
	}
}

// missing returns those of the flags that were not given, or are empty.
func (a *app) missing(cmd *cobra.Command, flags []string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool {
		fl := cmd.Flags().Lookup(f)
		return fl.Changed && !(fl.Value.Type() == "string" && fl.Value.String() == "")
	})
}

// mustHave is the error of flags that are missing.
func (a *app) mustHave(cmd *cobra.Command, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	hint := "for example: " + cmd.Example
	if slices.Contains(missing, "id") {
		switch ids := a.ids(); {
		case len(ids) > 12:
			hint += fmt.Sprintf("\nservices: %s, and %d more", strings.Join(ids[:12], ", "), len(ids)-12)
		case len(ids) > 0:
			hint += "\nservices: " + strings.Join(ids, ", ")
		}
	}
	return usageError(hint, "%s needs --%s", name(cmd), strings.Join(missing, " and --"))
}

// wordHint helps who gave words where flags are wanted: conductor service
// upgrade shop v2.
func wordHint(cmd *cobra.Command, missing, args []string) string {
	if len(missing) == 0 && cmd.Flags().Lookup("id") != nil && !cmd.Flags().Changed("id") {
		missing = []string{"id"} // of those that work without
	}
	if len(missing) == 0 || len(args) > len(missing) {
		return "see " + cmd.CommandPath() + " --help"
	}
	s := cmd.CommandPath()
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if cmd.InheritedFlags().Lookup(f.Name) != nil {
			return
		}
		if f.Value.Type() == "bool" {
			s += " --" + f.Name
		} else {
			s += " --" + f.Name + " " + strings.Trim(f.Value.String(), "[]")
		}
	})
	for i, word := range args {
		s += " --" + missing[i] + " " + word
	}
	return "did you mean: " + s
}

// name is the command without the program: "service upgrade".
func name(cmd *cobra.Command) string {
	_, rest, ok := strings.Cut(cmd.CommandPath(), " ")
	if !ok {
		return cmd.CommandPath()
	}
	return rest
}

// flagError says what is wrong with a flag and what was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	hint := "see " + cmd.CommandPath() + " --help"
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		word := e.GetSpecifiedName()
		if e.GetSpecifiedShortnames() != "" {
			return usageError(hint, "%s has no flag -%s", name(cmd), word)
		}
		var known []string
		all := func(f *pflag.Flag) { known = append(known, f.Name) }
		cmd.Flags().VisitAll(all)
		cmd.PersistentFlags().VisitAll(all)
		cmd.InheritedFlags().VisitAll(all)
		if n := nearest(word, known); n != "" {
			hint = "did you mean --" + n + "?"
		}
		return usageError(hint, "%s has no flag --%s", name(cmd), word)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usageError(hint, "--%s needs a value", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usageError(hint, "--%s %s: %w", e.GetFlag().Name, e.GetValue(), e.Unwrap())
	}
	return usageError(hint, "%s: %w", name(cmd), err)
}
