package deb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample() Package {
	return Package{
		Control: []Field{{"Package", "sample"}, {"Version", "1.0"}, {"Architecture", "all"}, {"Maintainer", "Nobody <nobody@localhost>"}, {"Description", "one\n more\n and more"}},
		Scripts: map[string][]byte{"postinst": []byte("#!/bin/sh\n"), "prerm": []byte("#!/bin/sh\n")},
		Files: []File{
			{Path: "/usr/bin/sample", Mode: 0o755, Data: []byte("odd")},
			{Path: "/etc/sample/services", Mode: 0o750, Folder: true},
			{Path: "/etc/sample/sample.yml", Mode: 0o644, Data: []byte("# mine\n"), Config: true},
			{Path: "/usr/share/" + strings.Repeat("long/", 40) + "name", Mode: 0o644, Data: bytes.Repeat([]byte("x"), 5000)},
		},
		Time: time.Unix(1e9, 0),
	}
}

func write(t *testing.T, p Package) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWrite_IsTheSameAgain(t *testing.T) {
	if !bytes.Equal(write(t, sample()), write(t, sample())) {
		t.Error("the same contents made other bytes")
	}
}

func TestFields(t *testing.T) {
	file := write(t, sample())
	fields, err := Fields(file)
	if err != nil || fields["Package"] != "sample" || fields["Version"] != "1.0" || fields["Architecture"] != "all" || fields["Installed-Size"] != "11" {
		t.Errorf("%v, %v", fields, err)
	}
	for n := range file {
		if n < len(file)-1 {
			_, _ = Fields(file[:n]) // which must not panic
		}
	}
	for _, other := range []string{"", "PK\x03\x04", "!<arch>\n", "!<arch>\n" + strings.Repeat("x", 60)} {
		if _, err := Fields([]byte(other)); err == nil {
			t.Errorf("%q is a package", other)
		}
	}
}

// dpkg takes it apart as it was put together.
func TestWrite_AsDpkgReadsIt(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Log("no dpkg-deb here; on a Debian host the tests of the fleet and of the package have it read")
		return
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sample.deb")
	if err := os.WriteFile(file, write(t, sample()), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.Command("dpkg-deb", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg-deb %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	list := run("--contents", file)
	for _, want := range []string{
		"drwxr-xr-x root/root         0 2001-09-09", "-rwxr-xr-x root/root         3", "drwxr-x--- root/root",
		"./usr/bin/sample\n", "./etc/sample/services/\n", "./etc/\n", strings.Repeat("long/", 40) + "name\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	if got := run("--field", file, "Description"); got != "one\n more\n and more\n" {
		t.Errorf("description %q", got)
	}
	run("--control", file, filepath.Join(dir, "control"))
	conf, err := os.ReadFile(filepath.Join(dir, "control", "conffiles"))
	if string(conf) != "/etc/sample/sample.yml\n" || err != nil {
		t.Errorf("conffiles %q, %v", conf, err)
	}
	run("--extract", file, filepath.Join(dir, "root"))
	sums := exec.Command("md5sum", "--strict", "-c", filepath.Join(dir, "control", "md5sums"))
	sums.Dir = filepath.Join(dir, "root")
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("md5sums: %v\n%s", err, out)
	}
}
