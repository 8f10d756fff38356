package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

// Diagnosis is why an instance is not well, as far as can be found.
type Diagnosis struct {
	// Summary is one sentence: what was seen, and what to change where that is
	// known: "GET :8080/health: connection refused; the container listens on
	// 0.0.0.0:3000: set http.port: 3000".
	Summary string
	// Hint is the next thing to do; never empty.
	Hint string
	// Lines are the facts, one a line.
	Lines []string
	// Log are the last 50 lines of both outputs, fit for a terminal, in the
	// order in which the engine has them.
	Log []string
	// HostFull: it is for want of room on the host's disk, whatever is in the
	// release.
	HostFull bool
}

const (
	logLines = 50
	// patience is how long a diagnosis may take over its finding. It is
	// between a failure and the report of it.
	patience = 3 * time.Second
)

// Diagnose finds out why the instance is not well. last is the answer to the
// last probe, nil without one; c is what the engine's Inspect said. It never
// fails: what cannot be found out is left out. It asks the container, so it
// comes before its removal.
func Diagnose(ctx context.Context, e engine.Engine, i Instance, h spec.Health, last *Result, c engine.Container) Diagnosis {
	return diagnose(ctx, "/proc", e, i, h, last, c)
}

func diagnose(ctx context.Context, proc string, e engine.Engine, i Instance, h spec.Health, last *Result, c engine.Container) Diagnosis {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x := examination{proc: proc, i: i, h: h, last: last, c: c, now: time.Now()}
	if c.State == engine.Running {
		x.look(ctx)
		if x.unseen != nil {
			// It may have ended since it was inspected.
			if again, err := e.Inspect(ctx, i.Container); err == nil {
				x.c = again
			}
		}
	}
	var d Diagnosis
	d.Log, x.lastWord = readLog(ctx, e, i.Container, &d)
	x.log = d.Log

	f := x.find()
	d.Summary, d.Hint, d.HostFull = f.seen, f.hint, f.hostFull
	if f.fix != "" {
		d.Summary += ": " + f.fix
		if d.Hint == "" {
			d.Hint = f.fix
		}
	}
	if d.Hint == "" {
		d.Hint = "see the last lines of its log"
		if len(d.Log) == 0 {
			d.Hint = "it logged nothing: run its command by hand, in a container of the same image"
		}
	}
	d.Lines = append(x.facts(), d.Lines...)
	return d
}

// finding is what a diagnosis comes down to.
type finding struct {
	seen string // what happened
	fix  string // what to change, in words of the definition; may be empty
	hint string // what to do; empty: the fix

	hostFull bool
}

// examination has all that a finding is drawn from.
type examination struct {
	proc string
	i    Instance
	h    spec.Health
	last *Result
	c    engine.Container
	now  time.Time

	log      []string
	lastWord string // of the log

	looked    bool // sockets below are known
	sockets   sockets
	unseen    error // why they are not
	reachable bool  // a connection was just made where the probe goes
}

// look finds out what the running container listens on.
func (x *examination) look(ctx context.Context) {
	if x.c.PID == 0 {
		x.unseen = fmt.Errorf("its process is not known")
		return
	}
	if x.sockets, x.unseen = listeners(x.proc, x.c.PID); x.unseen != nil {
		return
	}
	x.looked = true
	if to := target(x.i, x.h); x.last != nil && x.last.Refused && x.sockets.at(to.Port()) != nil {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		var dial net.Dialer
		if conn, err := dial.DialContext(ctx, "tcp", to.String()); err == nil {
			_ = conn.Close()
			x.reachable = true
		}
	}
}

func (x *examination) find() finding {
	c := x.c
	switch {
	case c.State == engine.Removing || c.ID == "" && c.State == "":
		return finding{seen: "its container is gone", hint: "something else removed it: see the engine's log, and who else uses the engine"}
	case c.State != engine.Running && c.State != engine.Paused && (c.Error != "" || c.StartedAt.IsZero()):
		return cannotStart(c)
	case c.State == engine.Exited:
		return x.exited()
	case c.State == engine.Paused:
		return finding{seen: "its container is paused", hint: "something paused it: docker unpause " + c.Name}
	case x.last == nil:
		return finding{seen: "it was not probed in " + seconds(x.age()), fix: "raise health.start_timeout"}
	}
	switch x.h.Kind {
	case spec.HealthHTTP, spec.HealthTCP:
		if x.last.Status != 0 {
			return x.badAnswer()
		}
		if x.last.Refused {
			return x.refused()
		}
		return x.silent()
	case spec.HealthCommand:
		return finding{seen: x.last.Text, hint: "run " + strings.Join(x.h.Command, " ") + " by hand, in a container of the same image"}
	case spec.HealthUptime:
		return finding{seen: x.last.Text, fix: "health.start_timeout has to be longer than health.uptime"}
	}
	return finding{seen: x.last.Text}
}

func (x *examination) age() time.Duration {
	at := x.c.StartedAt
	if at.IsZero() {
		at = x.i.StartedAt
	}
	if at.IsZero() {
		return 0
	}
	return max(x.now.Sub(at), 0)
}

func cannotStart(c engine.Container) finding {
	if c.Error == "" {
		return finding{seen: "its container was not started", hint: "run the same command again"}
	}
	f := finding{seen: "it cannot be started: " + cut(clean(c.Error), 300)}
	has := func(s string) bool { return strings.Contains(c.Error, s) }
	switch {
	case has("exec format error"):
		f.fix = "build the image for the processor of this host"
	case has("executable file not found"), has("no such file or directory") && has("exec"):
		f.fix = noCommand
	case has("permission denied") && has("exec"):
		f.fix = "make the file executable in the image, or set command"
	case has("unable to find user"), has("no matching entries in passwd"):
		f.fix = "set user to one that the image has"
	case has("address already in use"), has("port is already allocated"):
		f.fix = "free the port, or set another one in ports"
	case has("no space left on device"), has("disk quota exceeded"):
		f.hint, f.hostFull = "make room on the disk that holds the engine's data (docker system df)", true
	case has("mount"):
		f.hint = "see that the sources of its volumes are there and of the right kind"
	default:
		f.hint = "see the engine's log"
	}
	return f
}

// exited is about a process that ran and ended.
func (x *examination) exited() finding {
	c := x.c
	// Of a process that ends at once Docker can note the end before the start.
	after := " at once"
	if d := c.FinishedAt.Sub(c.StartedAt); d > 0 {
		after = " after " + seconds(d)
	}
	if c.OOMKilled {
		f := finding{seen: "killed by the kernel" + after + ": out of memory", fix: "set limits.memory higher, or let it use less"}
		if x.i.Memory > 0 {
			f.seen += ", limits.memory is " + bytesText(x.i.Memory)
		} else {
			f.fix = "the host has too little memory for it"
		}
		return f
	}
	var f finding
	signal := signalName(c.ExitCode)
	switch {
	case signal == "SIGKILL" && x.i.Memory > 0:
		// The engine misses what the kernel does in the first milliseconds.
		f = finding{seen: "killed by SIGKILL" + after + ", perhaps for being out of memory, limits.memory is " + bytesText(x.i.Memory),
			hint: "see dmesg; where it says so, set limits.memory higher"}
	case signal == "SIGKILL":
		f = finding{seen: "killed by SIGKILL" + after, hint: "it was not Conductor: see dmesg for the host's memory running out, and who else uses the engine"}
	case signal != "":
		f.seen = "killed by " + signal + after
	case c.ExitCode == 0:
		f = finding{seen: "exited 0" + after, fix: "its command has to stay in the foreground"}
	case c.ExitCode == 127 && initLacks(x.lastWord):
		f = finding{seen: "exited 127" + after, fix: noCommand}
	case c.ExitCode == 127:
		f = finding{seen: "exited 127" + after, fix: "a command that it runs is not in the image"}
	case c.ExitCode == 126:
		f = finding{seen: "exited 126" + after, fix: "a file that it runs is not executable"}
	default:
		f.seen = fmt.Sprintf("exited %d%s", c.ExitCode, after)
	}
	if x.lastWord != "" {
		f.seen += ", log: " + cut(x.lastWord, 200)
	}
	if strings.Contains(strings.ToLower(x.lastWord), "cannot assign requested address") {
		f.fix = "bind 0.0.0.0; the container has no such address (::1 where the network has no IPv6)"
	}
	return f
}

const noCommand = "set command to one that the image has, or build an image with it"

// initLacks: these are the words of the engine's init, which is the process
// that misses the command where there is one.
func initLacks(word string) bool {
	return strings.HasPrefix(word, "[FATAL tini ") && strings.HasSuffix(word, " failed: No such file or directory")
}

// signalName names the signal that an exit code tells of: 128 + its number.
func signalName(code int) string {
	if code <= 128 || code > 128+64 {
		return ""
	}
	return unix.SignalName(unix.Signal(code - 128))
}

// facts are what is known, one a line, whatever the finding.
func (x *examination) facts() []string {
	var l []string
	c := x.c
	switch {
	case c.State == engine.Exited && !c.StartedAt.IsZero():
		f := fmt.Sprintf("exit code %d", c.ExitCode)
		if s := signalName(c.ExitCode); s != "" {
			f += " (" + s + ")"
		}
		if d := c.FinishedAt.Sub(c.StartedAt); d > 0 {
			f += ", ran " + seconds(d)
		}
		if c.OOMKilled {
			f += ", out of memory"
		}
		l = append(l, f)
	case c.State == engine.Running:
		l = append(l, "has run "+seconds(x.age()))
	case c.State != "":
		l = append(l, "container is "+string(c.State))
	}
	if c.Error != "" {
		l = append(l, "engine: "+cut(clean(c.Error), 500))
	}
	if x.last != nil {
		l = append(l, "last probe: "+x.last.Text)
		if x.last.Body != "" {
			l = append(l, "its body: "+x.last.Body)
		}
	}
	switch {
	case x.looked && len(x.sockets) == 0:
		l = append(l, "listens on nothing")
	case x.looked:
		l = append(l, "listens on "+x.sockets.String())
	}
	return l
}

// readLog returns the last lines of the container's log, and the one that is
// most likely to say why it ended: the last of stderr, where it wrote any. The
// engine reads the two outputs apart, so which line was the last is not known.
func readLog(ctx context.Context, e engine.Engine, id string, d *Diagnosis) (log []string, lastWord string) {
	out, errs := &lines{max: logLines}, &lines{max: 1}
	err := e.Logs(ctx, id, engine.LogOptions{Tail: logLines}, out.stream(), io.MultiWriter(out.stream(), errs.stream()))
	if err != nil {
		d.Lines = append(d.Lines, "its log cannot be read: "+cut(clean(err.Error()), 200))
	}
	log = out.all()
	if words := append(log[max(0, len(log)-1):], errs.all()...); len(words) > 0 {
		lastWord = words[len(words)-1]
	}
	return log, lastWord
}
