package cli

import (
	"cmp"
	"context"
	"maps"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"conductor/internal/remote"
	"conductor/internal/session"
)

// session is what a deploy starts on each host, over ssh.
func (a *app) session() *cobra.Command {
	return &cobra.Command{
		Use:   "session",
		Short: "Do what a conductor on another machine asks",
		Long: `Reads one request from its input, does it, and answers. It is what conductor
deploy starts on hosts over ssh; it is not for people.`,
		Example: "conductor session",
		Hidden:  true,
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What was begun goes on when the connection ends.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			s := session.Server{Version: thisVersion().Version, Code: Code, Trouble: err, Do: map[remote.Do]session.Handler{
				remote.Command: a.command,
				remote.Exec:    a.command,
			}}
			if err == nil && p.Station != nil {
				maps.Copy(s.Do, p.Station.Handlers())
				s.Holds = p.Station.Holds
			}
			if code := s.Serve(cmd.Context(), a.env.Stdin, a.env.Stdout, a.stderr); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// command is one of the commands of this program, asked for from elsewhere. It
// says by itself how it ended.
func (a *app) command(ctx context.Context, c session.Call) error {
	e := a.env
	e.Session = &c.Request
	e.Stdin, e.Stdout, e.Stderr = c.Stdin, c.Stdout, c.Stderr
	var flags []string
	if c.Do == remote.Command {
		flags = append(flags, "--output=json")
	}
	if a.configFile != "" {
		flags = append(flags, "--config="+a.configFile)
	}
	return session.Exit(Main(ctx, append(flags, c.Args...), e))
}

// why is the reason that was given for what is done; it may be empty.
func (a *app) why() string {
	if r := a.env.Session; r != nil {
		return cmp.Or(a.reason, r.Reason)
	}
	return a.reason
}
