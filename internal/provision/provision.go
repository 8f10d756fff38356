// Package provision brings Debian hosts the packages that they should have:
// conductor's own, made from the running program, and what it works with.
//
// A host that has nothing of ours is given a script (host.sh) for root's shell,
// over the same connection as all else. Where conductor is there already, its
// own session runs the same script. cli and session use it. It imports contrib,
// deb, remote and fault.
package provision

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// script has what is done on a host, as functions of its shell.
//
//go:embed host.sh
var script string

// Host is a machine that may have nothing of ours.
type Host struct {
	Bare remote.Bare
	At   remote.Host
}

// Found is what a host says of itself.
type Found struct {
	System       string   `json:"system"`       // Debian GNU/Linux 12 (bookworm)
	Architecture string   `json:"architecture"` // as Debian calls it
	Version      string   `json:"version,omitempty"`
	Digest       string   `json:"-"`                 // of its conductor: SHA-256, in hex
	Missing      []string `json:"missing,omitempty"` // packages that conductor's recommends
	// Newer: its conductor is newer than what Look was asked with.
	Newer bool `json:"newer,omitempty"`
}

// Look asks what there is. It changes nothing.
func (h Host) Look(ctx context.Context, m Made) (f Found, err error) {
	err = h.run(ctx, strings.NewReader(script+"\nlook "+word(m.Version)+" "+word(recommends)+"\n"), func(line string) {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "system":
			f.System = value
		case "architecture":
			f.Architecture = value
		case "version":
			f.Version = value
		case "digest":
			f.Digest = value
		case "missing":
			f.Missing = append(f.Missing, value)
		case "newer":
			f.Newer = true
		}
	})
	return f, err
}

// Has says whether a host has all of the package already.
func (f Found) Has(m Made) bool {
	same := f.Version == m.Version && (m.Digest == "" || f.Digest == m.Digest)
	return len(f.Missing) == 0 && (same || f.Newer)
}

// Fits is an error where the package is not for the host.
func (f Found) Fits(m Made) error {
	if m.Architecture != f.Architecture && m.Architecture != "all" {
		return fault.New(fault.ErrUsage, fmt.Sprintf("build the package for it (GOARCH=… script/package), and give it: --package conductor_%s_%s.deb", m.Version, f.Architecture),
			"the host is of the architecture %s, and this conductor of %s", f.Architecture, m.Architecture)
	}
	return nil
}

// Install has the host install the package and what it recommends, from its own
// sources. note is told what is waited for. Where the connection is cut it goes
// on there; the next call waits for that.
func (h Host) Install(ctx context.Context, m Made, note func(string)) error {
	file, err := m.File()
	if err != nil {
		return fmt.Errorf("make the package: %w", err)
	}
	return h.run(ctx, io.MultiReader(strings.NewReader(script+"\nbegin\n"), parts(file), strings.NewReader("\ninstall_package\n")), note)
}

// partBytes is how much of a file goes into one document of the script: a shell
// keeps each in memory.
const partBytes = 3 << 18

// parts are the commands that make the file there. Its bytes are written as
// letters and digits: nothing of them means anything to a shell.
func parts(file []byte) io.Reader {
	var all []io.Reader
	for part := range chunks(file, partBytes) {
		all = append(all, strings.NewReader("part <<END\n"+base64.StdEncoding.EncodeToString(part)+"\nEND\n"))
	}
	return io.MultiReader(all...)
}

func chunks(b []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			m := min(n, len(b))
			if !yield(b[:m]) {
				return
			}
			b = b[m:]
		}
	}
}

// Refreshed is what became of a host's packages.
type Refreshed struct {
	Packages string `json:"packages"`         // in apt's words: "3 upgraded, 0 newly installed"
	Reboot   bool   `json:"reboot,omitempty"` // is due
}

// Refresh upgrades the packages of this host, from its own sources; what an
// admin has changed in files of theirs is kept. It needs root. Once begun it goes
// on to its end.
func Refresh(ctx context.Context, note func(string)) (r Refreshed, err error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-s")
	cmd.Stdin = strings.NewReader(script + "\nrefresh\n")
	var errs bytes.Buffer
	out := &lines{each: func(line string) {
		switch name, value, _ := strings.Cut(line, "="); name {
		case "packages":
			r.Packages = value
		case "reboot":
			r.Reboot = true
		default:
			note(line)
		}
	}}
	cmd.Stdout, cmd.Stderr = out, &errs
	if err := cmd.Run(); err != nil {
		class := fault.ErrHost
		if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 7 {
			class = fault.ErrLocked
		}
		return r, fault.New(class, hint, "%s", cmp.Or(remote.LastLines(errs.String()), "refresh the packages: "+err.Error()))
	}
	return r, nil
}

const hint = "/var/log/conductor/packages.log on the host has all that apt said; run it again when that is put right"

// run has root's shell there do the script.
func (h Host) run(ctx context.Context, script io.Reader, note func(string)) error {
	err := h.Bare.Root(ctx, h.At, script, remote.Streams{Stdout: &lines{each: note}})
	if err != nil && fault.Hint(err) == "" && !remote.Unreached(err) {
		return fault.New(classOf(err), hint, "%w", err)
	}
	return err
}

func classOf(err error) error {
	if code := remote.ClassCode(err); code == 7 {
		return fault.ErrLocked
	}
	return fault.ErrHost
}

// word is text as one word of a shell, which nothing in it can leave.
func word(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// lines gives each whole line that is written.
type lines struct {
	mu   sync.Mutex
	each func(string)
	part []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, b...)
	for {
		n, line, err := bufio.ScanLines(l.part, false)
		if err != nil || n == 0 {
			return len(b), err
		}
		l.part = l.part[n:]
		l.each(strings.ToValidUTF8(string(line), "\uFFFD"))
	}
}
