package ship

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// saved is an image taken apart: its configuration, and its layers as files
// that are tars and not compressed.
type saved struct {
	config []byte
	layers []string         // sums, from the bottom
	sizes  map[string]int64 // by sum
	dir    string
}

// file is where a layer is.
func (s *saved) file(layer string) string { return filepath.Join(s.dir, bare(layer)) }

// save has the engine save an image, and takes it apart in a folder while it
// comes.
func save(ctx context.Context, e engine.Archives, id, dir string) (*saved, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := e.SaveImage(ctx, id, w)
		w.CloseWithError(err)
		done <- err
	}()
	s, err := takeApart(bufio.NewReaderSize(r, 1<<20), dir)
	r.CloseWithError(errors.New("taken apart"))
	saving := <-done
	if err == nil {
		return s, nil
	}
	// What the engine says of its own failure is the cause of ours.
	if saving != nil && errors.Is(err, saving) {
		return nil, saving
	}
	return nil, tellSpace(fmt.Errorf("save image %s: %w", id, err), dir)
}

// errArchive: what the engine saved is not an image that can be shipped.
func errArchive(format string, args ...any) error {
	return fault.New(fault.ErrImage, "", "the archive "+format, args...)
}

// maxEntries is more files than any engine writes for one image: four for each
// layer, and some.
const maxEntries = 8 * maxLayers

// entry is a file of the archive, under its name there; the file here is named
// by a number. Names from an archive are compared, and never opened.
type entry struct {
	file string
	sum  string
	size int64
}

// takeApart reads an archive of one image, in the form of any engine: layers
// and manifests come in any order, under any names, and layers may be
// compressed.
func takeApart(r io.Reader, dir string) (*saved, error) {
	entries, links := map[string]entry{}, map[string]string{}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxEntries {
			return nil, errArchive("has more than %d entries", maxEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			e := entry{file: filepath.Join(dir, "entry-"+strconv.Itoa(n)), size: h.Size}
			if e.sum, err = write(e.file, t); err != nil {
				return nil, err
			}
			entries[name] = e
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		}
	}
	find := func(name string) (entry, error) {
		at := path.Clean(name)
		for range 8 { // of links to links; they may go in a circle
			if e, ok := entries[at]; ok {
				return e, nil
			}
			at = links[at]
		}
		return entry{}, errArchive("has no %q", name)
	}
	s, err := assemble(find, dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := os.Remove(e.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return s, nil
}

// assemble finds configuration and layers among the entries, and checks them
// against each other.
func assemble(find func(name string) (entry, error), dir string) (*saved, error) {
	read := func(name string) ([]byte, error) {
		e, err := find(name)
		if err != nil {
			return nil, err
		}
		if e.size > maxConfig {
			return nil, errArchive("has a %q of %d bytes, more than %d", name, e.size, maxConfig)
		}
		return os.ReadFile(e.file)
	}
	text, err := read("manifest.json")
	if err != nil {
		return nil, err
	}
	var all []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, errArchive("has a manifest.json that cannot be read: %w", err)
	}
	if len(all) != 1 {
		return nil, errArchive("has %d images, not one", len(all))
	}
	config, err := read(all[0].Config)
	if err != nil {
		return nil, err
	}
	layers, err := layersOf(config)
	if err != nil {
		return nil, err
	}
	if len(layers) != len(all[0].Layers) {
		return nil, errArchive("has %d layers, the image's configuration %d", len(all[0].Layers), len(layers))
	}
	s := &saved{config: config, layers: layers, sizes: map[string]int64{}, dir: dir}
	for i, l := range layers {
		if _, again := s.sizes[l]; again {
			continue
		}
		e, err := find(all[0].Layers[i])
		if err != nil {
			return nil, err
		}
		if s.sizes[l], err = unpack(e, l, s.file(l)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// layersOf returns the sums of the layers that a configuration names.
func layersOf(config []byte) ([]string, error) {
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fault.New(fault.ErrImage, "", "the image's configuration cannot be read: %w", err)
	}
	for _, l := range c.RootFS.DiffIDs {
		if err := checkSum(l); err != nil {
			return nil, err
		}
	}
	return c.RootFS.DiffIDs, nil
}

// unpack puts a layer's entry at a path, not compressed, and returns its size.
func unpack(e entry, layer, to string) (int64, error) {
	if e.sum == layer {
		return e.size, os.Rename(e.file, to)
	}
	f, err := os.Open(e.file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	begin, _ := in.Peek(4)
	var r io.Reader
	switch {
	case bytes.HasPrefix(begin, []byte{0x1f, 0x8b}):
		if r, err = gzip.NewReader(in); err != nil {
			return 0, errArchive("has a layer %s that cannot be unpacked: %w", layer, err)
		}
	case slices.Equal(begin, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return 0, err
		}
		defer z.Close()
		r = z
	default:
		return 0, errArchive("has a layer that is %s, and should be %s", e.sum, layer)
	}
	got, err := write(to, r)
	if err != nil {
		return 0, err
	}
	if got != layer {
		return 0, errArchive("has a layer that is %s unpacked, and should be %s", got, layer)
	}
	st, err := os.Stat(to)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// write writes a file, and returns its sum. A layer can hold secrets.
func write(name string, r io.Reader) (sum string, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, h)}, struct{ io.Reader }{r}, make([]byte, 1<<18))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
