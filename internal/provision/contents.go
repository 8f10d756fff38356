package provision

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"conductor/contrib"
	"conductor/internal/deb"
	"conductor/internal/fault"
)

// Program is a conductor that is to be packaged.
type Program struct {
	Executable []byte
	Version    string // as the program says it
	Time       time.Time
	// Completions are for bash, zsh and fish; Pages are the manual's, by the
	// names of their files.
	Completions, Pages map[string][]byte
}

// recommends are what conductor works with on most hosts. A host with another
// engine, or one that has the balancer alone, needs none of them: they are no
// dependencies. Install brings them.
const recommends = "docker.io | docker-ce, nginx, libnginx-mod-http-lua, lua-resty-core, lua-resty-lrucache, cron"

const description = `deploys containers on this host without dropping a request
 Conductor brings the containers of this host to what their definitions say,
 behind nginx: a new release is started beside the old one, checked, routed, and
 only then is the old one drained and stopped. A supervisor replaces what dies or
 is sick. For a team with a handful of machines that wants no scheduler.`

// carried are the files of contrib, and where they go.
var carried = []struct {
	from   string
	to     string
	mode   int64
	config bool
}{
	{"package/conductor.yml", "/etc/conductor/conductor.yml", 0o644, true},
	{"package/logrotate", "/etc/logrotate.d/conductor", 0o644, true},
	{"init.d/conductor-supervise", "/etc/init.d/conductor-supervise", 0o755, true},
	{"systemd/conductor-supervise.service", "/lib/systemd/system/conductor-supervise.service", 0o644, false},
	{"package/copyright", "/usr/share/doc/conductor/copyright", 0o644, false},
}

// folders of nginx and cron are there from the beginning: the supervisor writes
// there, and its unit can allow that only where there is something.
var folders = []string{"/etc/conductor/services", "/etc/nginx/conf.d", "/etc/cron.d"}

// completions are where shells look for them.
var completions = map[string]string{
	"bash": "/usr/share/bash-completion/completions/conductor",
	"zsh":  "/usr/share/zsh/vendor-completions/_conductor",
	"fish": "/usr/share/fish/vendor_completions.d/conductor.fish",
}

// contents are what is in the package.
func (p Program) contents(arch string) (d deb.Package, err error) {
	d = deb.Package{Time: p.Time, Scripts: map[string][]byte{}, Control: []deb.Field{
		{Name: "Package", Value: "conductor"}, {Name: "Version", Value: Version(p.Version)}, {Name: "Architecture", Value: arch},
		{Name: "Maintainer", Value: "The Conductor authors <conductor@localhost>"}, {Name: "Section", Value: "admin"}, {Name: "Priority", Value: "optional"},
		{Name: "Recommends", Value: recommends}, {Name: "Description", Value: description},
	}}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		if d.Scripts[name], err = fs.ReadFile(contrib.Files, "package/"+name); err != nil {
			return d, err
		}
	}
	d.Files = append(d.Files, deb.File{Path: "/usr/bin/conductor", Mode: 0o755, Data: p.Executable})
	for _, c := range carried {
		data, err := fs.ReadFile(contrib.Files, c.from)
		if err != nil {
			return d, err
		}
		d.Files = append(d.Files, deb.File{Path: c.to, Mode: c.mode, Data: data, Config: c.config})
	}
	for _, f := range folders {
		d.Files = append(d.Files, deb.File{Path: f, Mode: 0o755, Folder: true})
	}
	for shell, data := range p.Completions {
		d.Files = append(d.Files, deb.File{Path: completions[shell], Mode: 0o644, Data: data})
	}
	for _, name := range slices.Sorted(maps.Keys(p.Pages)) {
		data, err := compressed(p.Pages[name])
		if err != nil {
			return d, err
		}
		d.Files = append(d.Files, deb.File{Path: path.Join("/usr/share/man/man1", name+".gz"), Mode: 0o644, Data: data})
	}
	return d, nil
}

func compressed(data []byte) ([]byte, error) {
	var b bytes.Buffer
	gz, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err = gz.Write(data); err == nil {
		err = gz.Close()
	}
	return b.Bytes(), err
}

// Version is what Debian calls a version: it begins with a digit, and what comes
// later is greater.
func Version(v string) string {
	v = strings.TrimPrefix(v, "v")
	if v == "" || v[0] < '0' || v[0] > '9' {
		v = "0~" + v
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', strings.ContainsRune(".+~", r):
			return r
		}
		return '+' // a "-" would begin Debian's own revision
	}, v)
}

// architectures are what Debian calls them.
var architectures = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "i386", elf.EM_ARM: "armhf", elf.EM_PPC64: "ppc64el", elf.EM_RISCV: "riscv64", elf.EM_S390: "s390x",
}

// architecture is that of an executable, which has to be one for all Debian
// hosts of it.
func architecture(executable []byte) (string, error) {
	const hint = "give a Debian package of conductor for the host: --package FILE.deb; script/package builds one"
	f, err := elf.NewFile(bytes.NewReader(executable))
	if err != nil {
		return "", fault.New(fault.ErrUsage, hint, "this conductor is not for Linux, and cannot be what the host runs")
	}
	defer f.Close()
	arch := architectures[f.Machine]
	if arch == "" {
		return "", fault.New(fault.ErrUsage, hint, "Debian has no architecture for an executable of %s", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fault.New(fault.ErrUsage, "build it with CGO_ENABLED=0; or "+hint, "this conductor needs libraries of the machine that it was built on, and cannot be what the host runs")
		}
	}
	return arch, nil
}

// Made is a package, and what it says of itself.
type Made struct {
	Version, Architecture string
	// Digest is the SHA-256 of the program in it, in hex; "": it is not known.
	Digest string
	// File makes the .deb, which takes a second.
	File func() ([]byte, error)
}

// Read takes a package that somebody has made. What is none of conductor's is
// fault.ErrUsage.
func Read(name string, file []byte) (Made, error) {
	const hint = "script/package builds one"
	fields, err := deb.Fields(file)
	if err != nil {
		return Made{}, fault.New(fault.ErrUsage, hint, "read package %s: %w", name, err)
	}
	if fields["Package"] != "conductor" || fields["Version"] == "" || fields["Architecture"] == "" {
		return Made{}, fault.New(fault.ErrUsage, hint, "%s is the package of %q, and not of conductor", name, fields["Package"])
	}
	return Made{Version: fields["Version"], Architecture: fields["Architecture"], File: func() ([]byte, error) { return file, nil }}, nil
}

// Make makes the package of the program. An executable that cannot run on any
// Debian host is fault.ErrUsage.
func Make(p Program) (Made, error) {
	arch, err := architecture(p.Executable)
	return Made{
		Version: Version(p.Version), Architecture: arch, Digest: fmt.Sprintf("%x", sha256.Sum256(p.Executable)),
		File: func() ([]byte, error) {
			d, err := p.contents(arch)
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			err = d.Write(&b)
			return b.Bytes(), err
		},
	}, err
}
