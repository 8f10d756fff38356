package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

const (
	// connectTimeout is for the TCP connection and the handshake each, in seconds.
	connectTimeout = 10
	// A connection on which nothing comes back for aliveInterval × aliveCount
	// seconds is dead.
	aliveInterval = 5
	aliveCount    = 3
	// setUpTimeout is for all of it, jump hosts and logging in included: somebody
	// may have to touch a key.
	setUpTimeout = 45 * time.Second
	// stopTimeout is how long ssh may take to end.
	stopTimeout = 2 * time.Second
)

// masterOptions are those of every connection. What would let somebody in who
// should not be, or make a session something else, is off, whatever people's
// own configuration says. An ssh of 2017 knows them all.
var masterOptions = []string{
	"ControlMaster=yes", "ControlPersist=no",
	"BatchMode=yes", "StrictHostKeyChecking=yes",
	"ConnectTimeout=" + strconv.Itoa(connectTimeout), "ConnectionAttempts=1",
	"ServerAliveInterval=" + strconv.Itoa(aliveInterval), "ServerAliveCountMax=" + strconv.Itoa(aliveCount),
	"ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "Tunnel=no", "ExitOnForwardFailure=no",
	"PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no",
	"LogLevel=INFO", // its reasons are read (words.go)
}

// master is one connection.
type master struct {
	cmd         *exec.Cmd
	socket, log string
	places      *places

	stopping sync.Once
	stopped  chan struct{} // closed: it shall end
	ready    chan struct{} // closed: the socket is there
	done     chan struct{} // closed: it has ended, and err is why
	err      error
}

func newMaster(command []string, dir string, host remote.Host, socket, log string) *master {
	args := append([]string{}, command[1:]...)
	args = append(args, "-N", "-T", "-S", tokens(socket), "-E", log)
	for _, o := range masterOptions {
		args = append(args, "-o", o)
	}
	if host.Port != 0 {
		args = append(args, "-p", strconv.Itoa(host.Port))
	}
	cmd := exec.Command(command[0], append(args, "--", host.SSH)...)
	cmd.Dir = dir
	return &master{
		cmd:    cmd,
		socket: socket, log: log, places: newPlaces(),
		stopped: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}),
	}
}

// run is the life of the connection.
func (m *master) run() {
	defer close(m.done)
	// What the commands say that it goes through (ProxyCommand, ProxyJump) are
	// reasons too.
	if log, err := os.OpenFile(m.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
		m.cmd.Stdout, m.cmd.Stderr = log, log
		defer log.Close()
	}
	ended := make(chan error, 1)
	if m.err = start(m.cmd, ended); m.err != nil {
		return
	}
	setUp := time.NewTimer(setUpTimeout)
	defer setUp.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 5*time.Millisecond) {
		if _, err := os.Stat(m.socket); err == nil { // ssh moves it to there once it listens
			close(m.ready)
			break
		}
		select {
		case m.err = <-ended:
			return
		case <-m.stopped:
			end(m.cmd, ended)
			m.err = remote.ErrClosed
			return
		case <-setUp.C:
			end(m.cmd, ended)
			m.err = errSlow
			return
		case <-time.After(wait):
		}
	}
	select {
	case m.err = <-ended:
	case <-m.stopped:
		end(m.cmd, ended)
		m.err = remote.ErrClosed
	}
}

// errSlow: the connection was not there in time.
var errSlow = errors.New("not connected in time")

// stop has the connection end; run returns when it has.
func (m *master) stop() { m.stopping.Do(func() { close(m.stopped) }) }

func (m *master) ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// connected waits until sessions can be opened.
func (m *master) connected(ctx context.Context, host remote.Host) error {
	select {
	case <-m.ready:
		return nil
	case <-m.done:
		select {
		case <-m.ready: // it was: the session will say that it is no more
			return nil
		default:
			return m.why(host)
		}
	case <-ctx.Done():
		return fmt.Errorf("%s: connect: %w", host.Name, context.Cause(ctx))
	}
}

// why says why there is no connection; it has ended.
func (m *master) why(host remote.Host) error {
	switch {
	case errors.Is(m.err, remote.ErrClosed):
		return fmt.Errorf("%s: %w", host.Name, m.err)
	case errors.Is(m.err, exec.ErrNotFound), errors.Is(m.err, fs.ErrNotExist):
		return fault.New(fault.ErrUnreachable, "install it (Debian: openssh-client), or say where it is: ssh: in fleet.yml",
			"reach %s: there is no %s on this machine", host, m.cmd.Args[0])
	}
	said := readLog(m.log)
	if errors.Is(m.err, errSlow) {
		return fault.New(fault.ErrUnreachable, "try it by hand: "+byHand(host), "reach %s: not logged in within %s%s", host, setUpTimeout, lastSaid(said))
	}
	return reason(host, said, m.err)
}

// start starts a command that dies with this process, and sends its end to
// ended. An error means that it did not start.
func start(cmd *exec.Cmd, ended chan<- error) error {
	// A group of its own: Ctrl-C is for conductor, which tells the hosts and
	// waits for them over these connections.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// It dies with the thread that started it, which is kept until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return <-started
}

// end ends a command and what it started: by a signal to its group, and after a
// while by one that cannot be refused.
func end(cmd *exec.Cmd, ended <-chan error) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-ended:
		return
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-ended
}
