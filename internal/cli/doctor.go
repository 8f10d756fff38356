package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fault"
)

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look whether the host is ready, and say what to do where it is not",
		Long: `Looks at all that an upgrade needs: configuration and definitions, the engine and
its network, the proxy, state_dir, room on the disks, the clock; and for orphans
and services that are not well. It changes nothing that serves.

Exits 0 where nothing failed (warnings may be there), else with the first
failure's code.`,
		Example: "conductor doctor",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := doctor{now: a.start, statfs: syscall.Statfs}
			a.examine(cmd.Context(), &d)
			if a.json() {
				if err := a.document(d.report()); err != nil {
					return err
				}
			} else if err := d.write(a.answerTo, display.Painter(a.color()), a.output.mode == display.Quiet); err != nil {
				return err
			}
			if code := d.code(); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// level is how a check came out.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// finding is what one check saw.
type finding struct {
	Check string `json:"check"`
	Level level  `json:"level"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code,omitempty"` // exit code, of a fail
}

// doctor collects findings.
type doctor struct {
	now      time.Time
	statfs   func(path string, buf *syscall.Statfs_t) error
	findings []finding
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Level: levelOK, Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(check, hint, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, Level: levelWarn, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// fail notes what went wrong; the hint is used where the error has none.
func (d *doctor) fail(check, hint string, err error) {
	f := finding{Check: check, Level: levelFail, Text: err.Error(), Hint: fault.Hint(err), Code: Code(err)}
	if f.Hint == "" {
		f.Hint = hint
	}
	d.findings = append(d.findings, f)
}

func (d *doctor) failed(check string) bool {
	return slices.ContainsFunc(d.findings, func(f finding) bool { return f.Check == check && f.Level == levelFail })
}

// code is that of the first failure.
func (d *doctor) code() int {
	for _, f := range d.findings {
		if f.Level == levelFail {
			return f.Code
		}
	}
	return 0
}

func (d *doctor) count(l level) (n int) {
	for _, f := range d.findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

func (d *doctor) report() any {
	return struct {
		OK     bool      `json:"ok"`
		Checks []finding `json:"checks"`
	}{d.code() == 0, d.findings}
}

// write writes a line for each finding and a verdict; quiet leaves out what is
// well.
func (d *doctor) write(w io.Writer, paint display.Painter, quiet bool) error {
	var b strings.Builder
	styles := map[level]display.Style{levelOK: display.Green, levelWarn: display.Yellow, levelFail: display.Red}
	for _, f := range d.findings {
		if quiet && f.Level == levelOK {
			continue
		}
		text := strings.ReplaceAll(strings.TrimSpace(display.Clean(f.Text)), "\n", "\n                   ")
		fmt.Fprintf(&b, "%s  %-11s  %s\n", paint.Paint(styles[f.Level], fmt.Sprintf("%-4s", f.Level)), f.Check, text)
		if f.Hint != "" {
			fmt.Fprintf(&b, "                   %s %s\n", paint.Paint(display.Green, "→"), display.CleanLine(f.Hint))
		}
	}
	switch failed, warned := d.count(levelFail), d.count(levelWarn); {
	case quiet:
	case failed > 0:
		fmt.Fprintf(&b, "%s failed, %s\n", plural(failed, "check"), plural(warned, "warning"))
	case warned > 0:
		fmt.Fprintf(&b, "ready, with %s\n", plural(warned, "warning"))
	default:
		b.WriteString("ready\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// examine runs all checks, each as far as those before it allow.
func (a *app) examine(ctx context.Context, d *doctor) {
	c, err := a.config()
	if err != nil {
		d.fail("config", "", err)
		return
	}
	d.config(c)
	_, set, err := a.definitions()
	d.definitions(c, set, err)
	d.stateDir(c.StateDir)

	p, err := a.env.Open(ctx, Setup{
		Config: c, Definitions: set, User: a.whoAsks(), Look: true, Emit: func(event.Event) {},
		Warn: func(err error) { d.warn("history", fault.Hint(err), "%s", err) },
	})
	defer p.close()
	if err != nil && !d.failed("state") {
		d.fail("host", "", err)
	}
	if p != nil {
		d.host(ctx, c, set, p)
	}
	d.disk("disk", c.StateDir, "state_dir")
	d.clock()
}
