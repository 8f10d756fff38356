package provision

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// shell is a host whose root's shell is this machine's, with a program in place
// of those that would change something.
type shell struct {
	dir  string // has the programs
	said strings.Builder
}

func (s *shell) Root(ctx context.Context, host remote.Host, script io.Reader, st remote.Streams) error {
	text, err := io.ReadAll(script)
	if err != nil {
		return err
	}
	// What it may touch is in the folder.
	text = bytes.ReplaceAll(text, []byte("/usr/local/sbin:"), []byte(s.dir+":/usr/local/sbin:"))
	for _, p := range []string{"/var/log/", "/run/"} {
		text = bytes.ReplaceAll(text, []byte("="+p), []byte("="+s.dir+"/"))
		text = bytes.ReplaceAll(text, []byte(">"+p), []byte(">"+s.dir+"/"))
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), st.Stdout, &s.said
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &remote.ExitError{Host: host.Name, Code: exit.ExitCode(), Stderr: remote.LastLines(s.said.String())}
	}
	return err
}

// newShell is a Debian host with the packages that are named.
func newShell(t *testing.T, installed string) *shell {
	t.Helper()
	s := &shell{dir: t.TempDir()}
	for name, text := range map[string]string{
		"dpkg": `case $1 in
			--print-architecture) echo amd64 ;;
			--compare-versions) [ "$3" = gt ] && [ "$2" = 9.0 ] ;;
			esac`,
		"dpkg-query": `for last; do :; done
			case " ` + installed + ` " in *" $last "*) ;; *) exit 1 ;; esac
			case $3 in *Status*) printf installed ;; *) printf 9.0 ;; esac`,
		"dpkg-deb": "echo 'docker.io | docker-ce, nginx (>= 1.2), cron'",
		"apt-get":  `echo "$*" >>"$(dirname "$0")/asked"; case " $* " in *" install "*" conductor.deb"*|*/conductor.deb*) cp "$(dirname "$0")/conductor-packages/conductor.deb" "$(dirname "$0")/got" ;; esac`,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestLook(t *testing.T) {
	s := newShell(t, "conductor docker-ce nginx libnginx-mod-http-lua lua-resty-core")
	f, err := Host{s, remote.Host{Name: "web1"}}.Look(t.Context(), Made{Version: "1.0'; touch /root/no"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Architecture != "amd64" || f.System == "" || f.Version != "9.0" || !f.Newer || strings.Join(f.Missing, " ") != "lua-resty-lrucache cron" {
		t.Errorf("%+v", f)
	}
	if f.Has(Made{Version: "1.0"}) {
		t.Error("it has all, with packages missing")
	}
	if f.Missing = nil; !f.Has(Made{Version: "1.0"}) {
		t.Error("a newer one is to be replaced by an older")
	}
	if f.Newer = false; f.Has(Made{Version: "9.0", Digest: "another"}) {
		t.Error("another program of the same version is taken for the same")
	}
	if err := f.Fits(Made{Version: "1.0", Architecture: "arm64"}); !errors.Is(err, fault.ErrUsage) || !strings.Contains(fault.Hint(err), "--package") {
		t.Errorf("%v", err)
	}
}

// The file arrives as it is, whatever is in it.
func TestInstall_SendsTheFile(t *testing.T) {
	s := newShell(t, "nginx docker.io")
	file := append(bytes.Repeat([]byte("\x00\nEND\n$(reboot)'\"\\"), 100_000), 0xff)
	err := Host{s, remote.Host{Name: "web1"}}.Install(t.Context(), Made{File: func() ([]byte, error) { return file, nil }}, func(line string) { t.Log(line) })
	// Nothing is installed by what stands for apt-get here, which is noticed.
	if err == nil || !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "conductor is not installed") {
		t.Errorf("%v", err)
	}
	got, err := os.ReadFile(filepath.Join(s.dir, "got"))
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes came of %d, %v", len(got), len(file), err)
	}
	asked, _ := os.ReadFile(filepath.Join(s.dir, "asked"))
	lines := strings.Split(strings.TrimSpace(string(asked)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, " install cron ") || strings.Contains(last, "nginx") || !strings.Contains(last, "force-confold") {
		t.Errorf("apt-get was asked: %q", lines)
	}
}

func TestVersion(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.3": "1.2.3", "v1.2.3": "1.2.3", "development": "0~development", "0.0.0+812.gabc": "0.0.0+812.gabc",
		"v0.0.0-20261122004700-abcdef+dirty": "0.0.0+20261122004700+abcdef+dirty", "": "0~", "1.0 x\n": "1.0+x+",
	} {
		if got := Version(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestMake(t *testing.T) {
	// The head of a program for Linux on arm64 that needs no libraries.
	x := make([]byte, 64)
	copy(x, "\x7fELF\x02\x01\x01")
	x[16], x[18], x[20], x[52], x[54], x[58] = 2, 183, 1, 64, 56, 64
	p := Program{Executable: x, Version: "1.2", Time: time.Unix(1e9, 0), Completions: map[string][]byte{"bash": []byte("b")}, Pages: map[string][]byte{"conductor.1": []byte("page")}}
	m, err := Make(p)
	if err != nil || m.Version != "1.2" || m.Architecture != "arm64" || len(m.Digest) != 64 {
		t.Fatalf("%+v, %v", m.Version, err)
	}
	file, err := m.File()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.File(); err != nil || !bytes.Equal(again, file) {
		t.Errorf("another package, %v", err)
	}
	if read, err := Read("it", file); err != nil || read.Version != "1.2" || read.Architecture != "arm64" {
		t.Errorf("%+v, %v", read, err)
	}
	for _, name := range []string{"./usr/bin/conductor", "./etc/conductor/conductor.yml", "./lib/systemd/system/conductor-supervise.service", "./usr/share/man/man1/conductor.1.gz", "./etc/nginx/conf.d/"} {
		if !has(t, file, name) {
			t.Errorf("%s is not in it", name)
		}
	}
	for _, other := range [][]byte{nil, []byte("#!/bin/sh\n"), []byte("\xcf\xfa\xed\xfe and more")} {
		p.Executable = other
		if _, err := Make(p); !errors.Is(err, fault.ErrUsage) || !strings.Contains(fault.Hint(err), "--package") {
			t.Errorf("%q: %v", other, err)
		}
	}
	if _, err := Read("x.deb", []byte("PK")); !errors.Is(err, fault.ErrUsage) || !strings.Contains(err.Error(), "x.deb") {
		t.Errorf("%v", err)
	}
}

// has looks into the last archive of a package.
func has(t *testing.T, file []byte, name string) bool {
	t.Helper()
	_, data, _ := bytes.Cut(file, []byte("data.tar.gz"))
	gz, err := gzip.NewReader(bytes.NewReader(data[60-len("data.tar.gz"):]))
	if err != nil {
		t.Fatal(err)
	}
	gz.Multistream(false)
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err != nil {
			return false
		}
		if h.Name == name {
			return true
		}
	}
}
