// Package deb writes Debian packages. The same contents make the same bytes.
//
// internal/provision uses it; it imports no room.
package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Package is what a .deb has in it.
type Package struct {
	// Control are the fields, in their order; Installed-Size is filled in.
	Control []Field
	// Scripts are those of the maintainer, by name: postinst, prerm, ….
	Scripts map[string][]byte
	Files   []File
	Time    time.Time // of all files
}

// Field is one of the control file's. Further lines of a value begin with a
// space, as that file has them.
type Field struct{ Name, Value string }

// File is a file of the package, or a folder that it has although it may be
// empty. The folders that lead there are made.
type File struct {
	Path   string // absolute
	Mode   int64  // permissions
	Data   []byte
	Folder bool
	// Config: what an admin has changed in it is kept.
	Config bool
}

// Write writes the .deb.
func (p Package) Write(to io.Writer) error {
	data, err := p.data()
	if err != nil {
		return fmt.Errorf("write package: %w", err)
	}
	control, err := p.control()
	if err != nil {
		return fmt.Errorf("write package: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar.gz", data}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, p.Time.Unix(), 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	_, err = to.Write(b.Bytes())
	return err
}

// data is the archive of the files.
func (p Package) data() ([]byte, error) {
	a := newArchive(p.Time)
	made := map[string]bool{}
	for _, f := range p.sorted() {
		for _, parent := range parents(f.Path) {
			if !made[parent] {
				made[parent] = true
				a.folder(parent, 0o755)
			}
		}
		if f.Folder {
			made[f.Path] = true
			a.folder(f.Path, f.Mode)
			continue
		}
		a.file("."+f.Path, f.Mode, f.Data)
	}
	return a.end()
}

// control is the archive of what dpkg itself reads.
func (p Package) control() ([]byte, error) {
	var control, sums, conffiles strings.Builder
	size := 0
	for _, f := range p.sorted() {
		size++ // a kilobyte for each entry, as dpkg counts
		if f.Folder {
			continue
		}
		size += (len(f.Data) + 1023) / 1024
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.Data), f.Path[1:])
		if f.Config {
			fmt.Fprintln(&conffiles, f.Path)
		}
	}
	for _, f := range p.Control {
		fmt.Fprintf(&control, "%s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(&control, "Installed-Size: %d\n", size)
	a := newArchive(p.Time)
	a.folder("/", 0o755)
	a.file("./control", 0o644, []byte(control.String()))
	a.file("./md5sums", 0o644, []byte(sums.String()))
	if conffiles.Len() > 0 {
		a.file("./conffiles", 0o644, []byte(conffiles.String()))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Scripts)) {
		a.file("./"+name, 0o755, p.Scripts[name])
	}
	return a.end()
}

func (p Package) sorted() []File {
	return slices.SortedFunc(slices.Values(p.Files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}

// parents are the folders above a path, from / on.
func parents(p string) (all []string) {
	for p != "/" {
		p = path.Dir(p)
		all = append(all, p)
	}
	slices.Reverse(all)
	return all
}

// archive is a compressed tar. Its first error is told at its end.
type archive struct {
	b    bytes.Buffer
	gz   *gzip.Writer
	tar  *tar.Writer
	time time.Time
	err  error
}

func newArchive(t time.Time) *archive {
	a := &archive{time: t}
	a.gz = gzip.NewWriter(&a.b)
	a.tar = tar.NewWriter(a.gz)
	return a
}

func (a *archive) folder(path string, mode int64) {
	a.header(tar.Header{Typeflag: tar.TypeDir, Name: "." + strings.TrimSuffix(path, "/") + "/", Mode: mode})
}

func (a *archive) file(name string, mode int64, data []byte) {
	a.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))})
	if a.err == nil {
		_, a.err = a.tar.Write(data)
	}
}

func (a *archive) header(h tar.Header) {
	h.ModTime, h.Uname, h.Gname, h.Format = a.time.Truncate(time.Second), "root", "root", tar.FormatGNU
	if a.err == nil {
		a.err = a.tar.WriteHeader(&h)
	}
}

func (a *archive) end() ([]byte, error) {
	for _, c := range []io.Closer{a.tar, a.gz} {
		if a.err == nil {
			a.err = c.Close()
		}
	}
	return a.b.Bytes(), a.err
}
