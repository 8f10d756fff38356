package cli

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
	"conductor/internal/provision"
)

// packageCmd is for those who package this program.
func (a *app) packageCmd(root *cobra.Command) *cobra.Command {
	var executable string
	cmd := &cobra.Command{
		Use:     "package FILE.deb",
		Short:   "Write the Debian package of this program",
		Example: "conductor package conductor.deb",
		Hidden:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("for example: conductor package conductor.deb", "package needs a file to write")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			made, err := a.makePackage(root, executable)
			if err != nil {
				return err
			}
			file, err := made.File()
			if err == nil {
				err = atomicfile.Write(args[0], file, 0o644)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&executable, "executable", "", "this program for another architecture: a `FILE` (default the one that runs)")
	return cmd
}

// packageFor is the package that a host gets: the file, or one of this program.
func (a *app) packageFor(root *cobra.Command, file string) (provision.Made, error) {
	if file == "" {
		return a.makePackage(root, "")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return provision.Made{}, usageError("script/package builds one", "read the package: %w", err)
	}
	return provision.Read(file, data)
}

func (a *app) makePackage(root *cobra.Command, executable string) (m provision.Made, err error) {
	if executable == "" {
		if executable, err = os.Executable(); err != nil {
			return m, fault.New(fault.ErrHost, "", "find the path of conductor: %w", err)
		}
	}
	p := provision.Program{Version: thisVersion().Version, Time: builtAt(), Completions: map[string][]byte{}, Pages: map[string][]byte{}}
	if p.Executable, err = os.ReadFile(executable); err != nil {
		return m, fault.New(fault.ErrHost, "", "read the program: %w", err)
	}
	for _, shell := range shells {
		var b bytes.Buffer
		if err := complete(root, shell, &b); err != nil {
			return m, err
		}
		p.Completions[shell] = b.Bytes()
	}
	manuals(root, func(name, text string) { p.Pages[name+".1"] = []byte(text) })
	return provision.Make(p)
}

// built is when the sources were committed, in seconds of Unix; set by the linker.
var built string

// builtAt is the time of the files in the package, so that the same commit makes
// the same package.
func builtAt() time.Time {
	if n, err := strconv.ParseInt(built, 10, 64); err == nil {
		return time.Unix(n, 0)
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t
			}
		}
	}
	return time.Unix(0, 0)
}
