package ship

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"conductor/internal/fault"
)

// entries of an archive, in order.
type entries []tar.Header

func pack(t *testing.T, es entries, content map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range es {
		h.Mode, h.Size = 0o644, int64(len(content[h.Name]))
		must(t, w.WriteHeader(&h))
		_, err := w.Write(content[h.Name])
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func TestTakeApart_Forms(t *testing.T) {
	one, two := []byte("layer one"), noise(1, 5000)
	config := fmt.Appendf(nil, `{"rootfs":{"type":"layers","diff_ids":[%q,%q,%q]}}`, sum(one), sum(two), sum(one))
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, _ = g.Write(two)
	must(t, g.Close())
	z, err := zstd.NewWriter(&zs)
	must(t, err)
	_, _ = z.Write(one)
	must(t, z.Close())
	manifest := func(config string, layers ...string) []byte {
		b, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": nil, "Layers": layers}})
		must(t, err)
		return b
	}
	reg := func(names ...string) (es entries) {
		for _, n := range names {
			es = append(es, tar.Header{Typeflag: tar.TypeReg, Name: n})
		}
		return es
	}
	for _, c := range []struct {
		name    string
		es      entries
		content map[string][]byte
		want    string // error
	}{
		{
			name: "of Docker 20.10: a folder a layer, links to layers that are there, manifest last",
			es: append(entries{{Typeflag: tar.TypeDir, Name: "a/"}, {Typeflag: tar.TypeReg, Name: "a/layer.tar"}, {Typeflag: tar.TypeReg, Name: "b/layer.tar"},
				{Typeflag: tar.TypeSymlink, Name: "c/layer.tar", Linkname: "../a/layer.tar"}}, reg("c.json", "manifest.json", "repositories")...),
			content: map[string][]byte{"a/layer.tar": one, "b/layer.tar": two, "c.json": config, "manifest.json": manifest("c.json", "a/layer.tar", "b/layer.tar", "c/layer.tar")},
		},
		{
			name: "of Docker 25 and later, layers compressed as they were pulled, manifest first",
			es:   reg("manifest.json", "index.json", "oci-layout", "blobs/sha256/c", "blobs/sha256/1", "blobs/sha256/2"),
			content: map[string][]byte{"blobs/sha256/1": zs.Bytes(), "blobs/sha256/2": gz.Bytes(), "blobs/sha256/c": config,
				"manifest.json": manifest("blobs/sha256/c", "blobs/sha256/1", "blobs/sha256/2", "blobs/sha256/1")},
		},
		{
			name: "names that lead out of the folder are names as any other",
			es: append(reg("../../../../../../tmp/ct-ship-evil", "/tmp/ct-ship-evil"), append(entries{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/tmp/ct-ship-evil"},
				{Typeflag: tar.TypeLink, Name: "hard", Linkname: "/tmp/ct-ship-evil"}, {Typeflag: tar.TypeFifo, Name: "fifo"}}, reg("c", "manifest.json")...)...),
			content: map[string][]byte{"../../../../../../tmp/ct-ship-evil": two, "/tmp/ct-ship-evil": one, "c": config,
				"manifest.json": manifest("c", "hard", "../../../../../../tmp/ct-ship-evil", "/tmp/ct-ship-evil")},
		},
		{
			name:    "a layer that is a file of the host",
			es:      reg("c", "manifest.json"),
			content: map[string][]byte{"c": config, "manifest.json": manifest("c", "/etc/passwd", "/etc/passwd", "/etc/passwd")},
			want:    `has no "/etc/passwd"`,
		},
		{
			name: "links in a circle",
			es: append(entries{{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b"}, {Typeflag: tar.TypeSymlink, Name: "b", Linkname: "a"}},
				reg("c", "manifest.json")...),
			content: map[string][]byte{"c": config, "manifest.json": manifest("c", "a", "a", "a")},
			want:    "has no",
		},
		{
			name:    "a layer that is another",
			es:      reg("c", "1", "2", "manifest.json"),
			content: map[string][]byte{"c": config, "1": one, "2": []byte("other"), "manifest.json": manifest("c", "1", "2", "1")},
			want:    "and should be " + sum(two),
		},
		{
			name:    "a compressed layer that is another",
			es:      reg("c", "1", "2", "manifest.json"),
			content: map[string][]byte{"c": config, "1": one, "2": zs.Bytes(), "manifest.json": manifest("c", "1", "2", "1")},
			want:    "unpacked, and should be " + sum(two),
		},
		{
			name:    "too few layers",
			es:      reg("c", "1", "manifest.json"),
			content: map[string][]byte{"c": config, "1": one, "manifest.json": manifest("c", "1")},
			want:    "has 1 layers, the image's configuration 3",
		},
		{name: "two images", es: reg("manifest.json"), content: map[string][]byte{"manifest.json": []byte("[{},{}]")}, want: "has 2 images"},
		{name: "no manifest", es: reg("c"), content: map[string][]byte{"c": config}, want: `has no "manifest.json"`},
		{name: "a manifest of something else", es: reg("manifest.json"), content: map[string][]byte{"manifest.json": []byte("{")}, want: "cannot be read"},
		{
			name:    "a sum that is a path",
			es:      reg("c", "1", "manifest.json"),
			content: map[string][]byte{"c": []byte(`{"rootfs":{"diff_ids":["sha256:../../../../tmp/ct-ship-evil"]}}`), "1": one, "manifest.json": manifest("c", "1")},
			want:    "not a sum",
		},
		{
			name:    "a configuration without end",
			es:      reg("c", "manifest.json"),
			content: map[string][]byte{"c": []byte(strings.Repeat(" ", maxConfig+1)), "manifest.json": manifest("c")},
			want:    "more than",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := takeApart(bytes.NewReader(pack(t, c.es, c.content)), dir)
			if _, evil := os.Lstat("/tmp/ct-ship-evil"); !errors.Is(evil, os.ErrNotExist) {
				t.Fatal("it was written outside its folder")
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, fault.ErrImage) && !errors.Is(err, fault.ErrUsage) {
					t.Fatalf("got %v, want …%s", err, c.want)
				}
				return
			}
			must(t, err)
			if !bytes.Equal(s.config, config) || len(s.layers) != 3 || s.sizes[sum(two)] != 5000 {
				t.Errorf("%+v", s)
			}
			for _, l := range [][]byte{one, two} {
				if got, err := os.ReadFile(s.file(sum(l))); err != nil || !bytes.Equal(got, l) {
					t.Errorf("a layer of %d bytes has %d: %v", len(l), len(got), err)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
				t.Errorf("left are %q", left)
			}
		})
	}
}

func TestTakeApart_CutAnywhere(t *testing.T) {
	one := noise(1, 3000)
	config := fmt.Appendf(nil, `{"rootfs":{"diff_ids":[%q]}}`, sum(one))
	manifest := []byte(`[{"Config":"c","Layers":["1"]}]`)
	all := pack(t, entries{{Name: "c"}, {Name: "1"}, {Name: "manifest.json"}}, map[string][]byte{"c": config, "1": one, "manifest.json": manifest})
	end := len(all) - 1024 - 512 + len(manifest) // what follows fills up
	for cut := 0; cut < end; cut += 100 {
		if _, err := takeApart(bytes.NewReader(all[:cut]), t.TempDir()); err == nil {
			t.Errorf("cut after %d of %d bytes, and nobody notices", cut, len(all))
		}
	}
}
