package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// maxControl is how long a control file may be, in bytes.
const maxControl = 1 << 20

// Fields reads the control file of a .deb whose control archive is compressed
// with gzip, as Write makes it, or not at all.
func Fields(file []byte) (map[string]string, error) {
	archive, err := member(file, "control.tar")
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("find its control file: %w", err)
		}
		if path.Clean(h.Name) != "control" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(t, maxControl))
		if err != nil {
			return nil, fmt.Errorf("read its control file: %w", err)
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
				fields[name] = strings.TrimSpace(value)
			}
		}
		return fields, nil
	}
}

// member is the archive in the .deb whose name begins so.
func member(file []byte, name string) (io.Reader, error) {
	const magic, head = "!<arch>\n", 60
	rest, ok := bytes.CutPrefix(file, []byte(magic))
	if !ok {
		return nil, errors.New("it is no Debian package")
	}
	for len(rest) >= head {
		called := strings.TrimRight(string(rest[:16]), " /")
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || size < 0 || head+size > len(rest) {
			break
		}
		data := rest[head : head+size]
		switch called {
		case name:
			return bytes.NewReader(data), nil
		case name + ".gz":
			return gzip.NewReader(bytes.NewReader(data))
		}
		if strings.HasPrefix(called, name) {
			return nil, fmt.Errorf("its %s is compressed in a way that is not known here: build it with dpkg-deb -Zgzip", called)
		}
		rest = rest[min(head+size+size%2, len(rest)):]
	}
	return nil, errors.New("it is no whole Debian package")
}
