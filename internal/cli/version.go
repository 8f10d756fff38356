package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X conductor/internal/cli.version=1.2.3
var version string

// versionInfo is the JSON of version.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Example: "conductor version",
		Args:    a.needs(),
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			if a.json() {
				return a.document(v)
			}
			s := "conductor " + v.Version
			if v.Commit != "" {
				s += " (" + short(v.Commit)
				if v.Modified {
					s += ", with changes"
				}
				s += ")"
			}
			_, err := fmt.Fprintf(a.answerTo, "%s, %s, %s\n", s, v.Go, v.Platform)
			return err
		},
	}
}

func thisVersion() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		b = &debug.BuildInfo{}
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	if v.Version == "" {
		v.Version = b.Main.Version
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "development"
	}
	return v
}

func short(commit string) string { return commit[:min(len(commit), 12)] }
