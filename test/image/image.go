package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Image is an image FROM scratch with one file, the binary, as /app, which is
// its command.
type Image struct {
	Binary string            // path of the static binary
	Files  map[string]string // executable files besides: path without a slash before it → text
	Links  map[string]string // symbolic links in the same way
	Dir    string            // its working directory; empty: /
	Cmd    string            // its command instead of /app
	Env    map[string]string // of the image
	Labels map[string]string
}

// Import makes the image and names it ref. Images of one binary share their
// only layer, whatever else differs.
func (e *Engine) Import(ctx context.Context, ref string, i Image) error {
	b, err := os.ReadFile(i.Binary)
	if err != nil {
		return err
	}
	var t bytes.Buffer
	w := tar.NewWriter(&t)
	// /tmp and /etc are there for applications that expect them. A header in
	// memory fails only if it is wrong, which Close tells.
	for _, dir := range []string{"tmp/", "etc/"} {
		w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: time.Unix(0, 0)})
	}
	w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(b)), ModTime: time.Unix(0, 0)})
	w.Write(b)
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(i.Files[name])), ModTime: time.Unix(0, 0)})
		io.WriteString(w, i.Files[name])
	}
	for _, name := range slices.Sorted(maps.Keys(i.Links)) {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: i.Links[name], Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	if err := w.Close(); err != nil {
		return err
	}
	repo, tag, ok := cutLast(ref, ':')
	if !ok {
		return fmt.Errorf("image %s has no tag", ref)
	}
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}}
	cmd := cmp.Or(i.Cmd, "/app")
	q["changes"] = append(append([]string{`CMD [` + quote(cmd) + `]`}, lines("ENV", i.Env)...), lines("LABEL", i.Labels)...)
	if i.Dir != "" {
		q["changes"] = append(q["changes"], "WORKDIR "+i.Dir)
	}
	var out []byte
	if err := e.Do(ctx, "POST", "/images/create", q, &t, &out); err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	if err := progress(out); err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	return nil
}

// lines are lines of a Dockerfile, ordered by key.
func lines(word string, m map[string]string) []string {
	var ls []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		ls = append(ls, word+" "+k+"="+quote(m[k]))
	}
	return ls
}

// quote writes a value for a Dockerfile, where $ and backslash would mean
// something.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// progress finds the error in a stream of progress messages, whose status was
// sent before it was known.
func progress(out []byte) error {
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		var m struct{ Error string }
		if err := d.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
	}
}
