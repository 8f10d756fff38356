package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"conductor/internal/fault"
)

// announceFD is the descriptor at which a run that is detached says its name.
const announceFD = 3

// detach runs the same command in a process of its own, which attends to the
// container when this one and its terminal are gone, and prints the container's
// name once it runs.
func (a *app) detach(command []string) error {
	flags := slices.Clone(a.args[:len(a.args)-len(command)])
	for i, w := range flags {
		if w == "-d" || w == "--detach" || w == "--detach=true" {
			flags[i] = fmt.Sprintf("--announce=%d", announceFD)
		}
	}
	name, done, err := os.Pipe()
	if err != nil {
		return a.notRun(failedRun, fault.New(fault.ErrHost, "", "detach: %w", err))
	}
	defer name.Close()
	self, err := os.Executable()
	if err != nil {
		return a.notRun(failedRun, fault.New(fault.ErrHost, "", "detach: %w", err))
	}
	var said bytes.Buffer
	child := exec.Command(self, append(flags, command...)...)
	child.ExtraFiles = []*os.File{done}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	errs, err := child.StderrPipe()
	if err == nil {
		err = child.Start()
	}
	_ = done.Close()
	if err != nil {
		return a.notRun(failedRun, fault.New(fault.ErrHost, "", "detach: %w", err))
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(&said, errs)
	}()
	b, err := io.ReadAll(name) // ends with the child, where it has no name to say
	if n := strings.TrimSpace(string(b)); n != "" && err == nil {
		_, err := fmt.Fprintln(a.stdout, n)
		return err
	}
	<-heard
	_, _ = a.stderr.Write(said.Bytes())
	if e, ok := errors.AsType[*exec.ExitError](child.Wait()); ok {
		return exitCode(e.ExitCode())
	}
	return exitCode(failedRun)
}

// announce says the run's name to the process that detached it.
func (a *app) announce(fd int, name string) {
	if fd == 0 {
		return
	}
	f := os.NewFile(uintptr(fd), "announce")
	_, _ = fmt.Fprintln(f, name)
	_ = f.Close()
}
