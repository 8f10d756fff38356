package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"conductor/internal/engine"
)

// imageConfig is what the fake reads of an image's configuration.
type imageConfig struct {
	Architecture string         `json:"architecture"`
	OS           string         `json:"os"`
	Config       map[string]any `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// imageManifest is one entry of an archive's manifest.json.
type imageManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// AddLayers puts an image with layers here, each a tar, from the bottom, and
// returns it. Unlike one of AddImage it can be saved and loaded. The same name
// and layers are the same image.
func (f *Fake) AddLayers(ref string, layers ...[]byte) engine.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := imageConfig{Architecture: "amd64", OS: "linux", Config: map[string]any{"Labels": map[string]string{"image": ref}}}
	c.RootFS.Type = "layers"
	files := map[string][]byte{}
	for _, l := range layers {
		id := sumOf(l)
		files[id] = l
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, id)
	}
	config, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	im := f.keep(config, c.RootFS.DiffIDs, files)
	f.name(im.ID, mustNormal(ref))
	return im.Image
}

// keep stores an image whose layers are in files, or here.
func (f *Fake) keep(config []byte, layers []string, files map[string][]byte) *image {
	id := sumOf(config)
	if f.WholeLoads {
		// It is named by a manifest, in which the layers are as they came.
		id = sumOf([]byte("manifest of " + id))
	}
	if im := f.images[id]; im != nil {
		return im
	}
	im := &image{
		Image: engine.Image{ID: id, Layers: layers, Size: int64(len(config))},
		names: map[string]bool{}, config: config, layers: map[string][]byte{},
	}
	for _, l := range layers {
		content, ok := files[l]
		if !ok {
			content = f.layer(l)
		}
		im.layers[l] = content
		im.Size += int64(len(content))
	}
	f.images[id] = im
	return im
}

// layer returns the content of a layer of an image here.
func (f *Fake) layer(id string) []byte {
	for _, im := range f.images {
		if content, ok := im.layers[id]; ok {
			return content
		}
	}
	return nil
}

// has says whether an image here begins with these layers.
func (f *Fake) has(layers []string) bool {
	for _, im := range f.images {
		if len(im.Layers) >= len(layers) && slices.Equal(im.Layers[:len(layers)], layers) {
			return true
		}
	}
	return false
}

// Images returns the images here, ordered by ID.
func (f *Fake) Images(ctx context.Context) (out []engine.Image, err error) {
	err = f.call(ctx, "Images", "", func() error {
		for _, im := range f.images {
			out = append(out, im.Image)
		}
		slices.SortFunc(out, func(a, b engine.Image) int { return strings.Compare(a.ID, b.ID) })
		return nil
	})
	return out, err
}

// SaveImage writes an image that has layers, in the form of Docker 20.10, or
// with WholeLoads in that of an engine on containerd: layers compressed, as
// blobs, after everything else.
func (f *Fake) SaveImage(ctx context.Context, ref string, w io.Writer) error {
	var archive []byte
	err := f.call(ctx, "SaveImage", ref, func() error {
		im, err := f.find(ref)
		if err != nil {
			return fmt.Errorf("save: %w", err)
		}
		if im.config == nil {
			return fmt.Errorf("save image %s: it has no layers", ref)
		}
		archive, err = im.archive(f.WholeLoads)
		return err
	})
	if err != nil {
		return err
	}
	if _, err := w.Write(archive); err != nil {
		return fmt.Errorf("save image %s: %w", ref, err)
	}
	return nil
}

func (im *image) archive(blobs bool) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Mode, h.Size = 0o644, int64(len(content))
		if err := t.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := t.Write(content); err != nil {
			panic(err)
		}
	}
	m := imageManifest{Config: strings.TrimPrefix(sumOf(im.config), "sha256:") + ".json"}
	seen := map[string]string{}
	var last []func()
	for i, l := range im.Layers {
		content := im.layers[l]
		name := fmt.Sprintf("%064x/layer.tar", i)
		if blobs {
			var z bytes.Buffer
			g, err := gzip.NewWriterLevel(&z, gzip.BestSpeed)
			if err != nil {
				return nil, err
			}
			_, _ = g.Write(content)
			if err := g.Close(); err != nil {
				return nil, err
			}
			content = z.Bytes()
			name = "blobs/sha256/" + strings.TrimPrefix(sumOf(content), "sha256:")
		}
		m.Layers = append(m.Layers, name)
		switch first, again := seen[l]; {
		case again && !blobs:
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: path.Join("..", first)}, nil)
		case again:
		case blobs:
			last = append(last, func() { add(tar.Header{Name: name}, content) })
		default:
			add(tar.Header{Typeflag: tar.TypeDir, Name: path.Dir(name) + "/"}, nil)
			add(tar.Header{Name: name}, content)
		}
		seen[l] = name
	}
	manifest, err := json.Marshal([]imageManifest{m})
	if err != nil {
		return nil, err
	}
	add(tar.Header{Name: m.Config}, im.config)
	add(tar.Header{Name: "manifest.json"}, manifest)
	for _, f := range last {
		f()
	}
	err = t.Close()
	return b.Bytes(), err
}

// LoadImage reads an archive.
func (f *Fake) LoadImage(ctx context.Context, archive io.Reader) (id string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	files, err := readTar(archive)
	if err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	err = f.call(ctx, "LoadImage", "", func() error {
		id, err = f.load(files)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	return id, nil
}

func readTar(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			// Who writes it waits until all is read.
			_, err = io.Copy(io.Discard, r)
			return files, err
		}
		if err != nil {
			return nil, err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			content, err := io.ReadAll(t)
			if err != nil {
				return nil, err
			}
			files[path.Clean(h.Name)] = content
		case tar.TypeSymlink:
			files[path.Clean(h.Name)] = files[path.Join(path.Dir(h.Name), h.Linkname)]
		}
	}
}

func (f *Fake) load(files map[string][]byte) (id string, err error) {
	var all []imageManifest
	if err := json.Unmarshal(files["manifest.json"], &all); err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", errors.New("the archive has more than one image, or none")
	}
	m := all[0]
	config := files[path.Clean(m.Config)]
	var c imageConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return "", err
	}
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return "", fmt.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	contents := map[string][]byte{}
	for i, l := range c.RootFS.DiffIDs {
		content, ok := files[path.Clean(m.Layers[i])]
		if !ok || !f.WholeLoads && f.has(c.RootFS.DiffIDs[:i+1]) {
			if f.WholeLoads || !f.has(c.RootFS.DiffIDs[:i+1]) {
				return "", fmt.Errorf("open %s: no such file or directory", m.Layers[i])
			}
			continue
		}
		if bytes.HasPrefix(content, []byte{0x1f, 0x8b}) {
			g, err := gzip.NewReader(bytes.NewReader(content))
			if err != nil {
				return "", err
			}
			if content, err = io.ReadAll(g); err != nil {
				return "", err
			}
		}
		if got := sumOf(content); got != l {
			return "", fmt.Errorf("invalid diffID for layer %d: expected %q, got %q", i, l, got)
		}
		contents[l] = content
	}
	im := f.keep(config, c.RootFS.DiffIDs, contents)
	for _, t := range m.RepoTags {
		n, err := normal(t)
		if err != nil {
			return "", err
		}
		f.name(im.ID, n)
	}
	return im.ID, nil
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}
