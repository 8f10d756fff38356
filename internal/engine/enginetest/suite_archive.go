package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing/iotest"
	"time"

	"conductor/internal/engine"
)

func testImages(b *bench) {
	all, err := b.Engine.Images(b.ctx())
	b.must(err)
	if !slices.IsSortedFunc(all, func(x, y engine.Image) int { return strings.Compare(x.ID, y.ID) }) {
		b.Errorf("not in order: %+v", all)
	}
	for _, ref := range []string{b.Image, b.Other} {
		im, err := b.Engine.Image(b.ctx(), ref)
		b.must(err)
		if len(im.Layers) == 0 || !strings.HasPrefix(im.Layers[0], "sha256:") {
			b.Errorf("%s has layers %q", ref, im.Layers)
		}
		if !slices.ContainsFunc(all, func(o engine.Image) bool { return o.ID == im.ID && slices.Equal(o.Layers, im.Layers) }) {
			b.Errorf("%+v is not among %+v", im, all)
		}
	}
}

// saved returns an image as it is saved, taken apart.
func (b *bench) saved(ref string) (files map[string][]byte, m imageManifest) {
	b.Helper()
	var archive bytes.Buffer
	b.must(b.Engine.SaveImage(b.ctx(), ref, &archive))
	files, err := readTar(&archive)
	b.must(err)
	var all []imageManifest
	b.must(json.Unmarshal(files["manifest.json"], &all))
	if len(all) != 1 || files[path.Clean(all[0].Config)] == nil || len(all[0].Layers) == 0 {
		b.Fatalf("manifest %s", files["manifest.json"])
	}
	for _, l := range all[0].Layers {
		if files[path.Clean(l)] == nil {
			b.Fatalf("layer %s is not in the archive", l)
		}
	}
	return files, all[0]
}

// pack makes an archive of a configuration and layers; a layer that is nil is
// left out.
func (b *bench) pack(config []byte, layers ...[]byte) io.Reader {
	b.Helper()
	m := imageManifest{Config: "config.json"}
	files := map[string][]byte{"config.json": config}
	for i, l := range layers {
		name := "layer-" + string(rune('a'+i))
		if m.Layers = append(m.Layers, name); l != nil {
			files[name] = l
		}
	}
	text, err := json.Marshal([]imageManifest{m})
	b.must(err)
	files["manifest.json"] = text
	all, err := tarOf(files, 0o644)
	b.must(err)
	return bytes.NewReader(all)
}

// variant returns the configuration of another image of the same layers.
func (b *bench) variant(config []byte, label string) []byte {
	b.Helper()
	var c map[string]any
	b.must(json.Unmarshal(config, &c))
	c["config"].(map[string]any)["Labels"] = map[string]string{"variant": label}
	out, err := json.Marshal(c)
	b.must(err)
	return out
}

// adopt names an image that was loaded, and takes the name away in the end.
func (b *bench) adopt(id string) {
	b.Helper()
	ref := b.Prefix + "/loaded:" + id[len(id)-8:]
	b.must(b.Engine.Tag(b.ctx(), id, ref))
	engine := b.Engine
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cs, err := engine.List(ctx, b.Labels)
		b.must(err)
		for _, c := range cs {
			if c.Image == id {
				b.must(engine.Stop(ctx, c.ID, 0))
				b.must(engine.Remove(ctx, c.ID))
			}
		}
		b.must(engine.Untag(ctx, ref))
	})
}

func testSave(b *bench) {
	im, err := b.Engine.Image(b.ctx(), b.Image)
	b.must(err)
	var archive bytes.Buffer
	b.must(b.Engine.SaveImage(b.ctx(), im.ID, &archive))
	for range 2 { // again
		id, err := b.Engine.LoadImage(b.ctx(), bytes.NewReader(archive.Bytes()))
		b.must(err)
		if id != im.ID {
			b.Errorf("loaded as %s, was saved as %s", id, im.ID)
		}
	}
	files, m := b.saved(b.Image)
	config := b.variant(files[path.Clean(m.Config)], "whole")
	var layers [][]byte
	for _, l := range m.Layers {
		layers = append(layers, files[path.Clean(l)])
	}
	id, err := b.Engine.LoadImage(b.ctx(), b.pack(config, layers...))
	b.must(err)
	b.adopt(id)
	got, err := b.Engine.Image(b.ctx(), id)
	b.must(err)
	if id == im.ID || !slices.Equal(got.Layers, im.Layers) {
		b.Errorf("loaded %+v, from the layers of %+v", got, im)
	}
	c := b.plan("loaded", Exit(3))
	c.Image = id
	if code := b.wait(b.startOf(c)); code != 3 {
		b.Errorf("it ends with %d", code)
	}
}

func testSaveWriter(b *bench) {
	own := errors.New("the writer's own")
	r, w := io.Pipe()
	b.must(r.CloseWithError(own))
	b.is(b.Engine.SaveImage(b.ctx(), b.Image, w), own)
}

func testLoadPart(b *bench) {
	info, err := b.Engine.Info(b.ctx())
	b.must(err)
	if info.WholeLoads {
		return // it does not promise that
	}
	files, m := b.saved(b.Image)
	config := b.variant(files[path.Clean(m.Config)], "part")
	id, err := b.Engine.LoadImage(b.ctx(), b.pack(config, make([][]byte, len(m.Layers))...))
	b.must(err)
	b.adopt(id)
	if id != sumOf(config) {
		b.Errorf("image %s has the configuration %s", id, sumOf(config))
	}
	c := b.plan("part", Exit(4))
	c.Image = id
	if code := b.wait(b.startOf(c)); code != 4 {
		b.Errorf("it ends with %d", code)
	}
}

func testLoadRefused(b *bench) {
	files, m := b.saved(b.Image)
	var c map[string]any
	b.must(json.Unmarshal(b.variant(files[path.Clean(m.Config)], "refused"), &c))
	layer, err := tarOf(map[string][]byte{"word": []byte(b.name("refused"))}, 0o644)
	b.must(err)
	other, err := tarOf(map[string][]byte{"word": []byte(b.name("other"))}, 0o644)
	b.must(err)
	c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []string{sumOf(layer)}}
	config, err := json.Marshal(c)
	b.must(err)
	for name, archive := range map[string]io.Reader{
		"a layer is missing":       b.pack(config, nil),
		"a layer is not as it was": b.pack(config, other),
		"a layer too few":          b.pack(config),
		"half of a tar":            io.LimitReader(b.pack(config, layer), 700),
		"nothing":                  strings.NewReader(""),
		"no tar":                   strings.NewReader(strings.Repeat("x", 4096)),
	} {
		id, err := b.Engine.LoadImage(b.ctx(), archive)
		if err == nil || errors.Is(err, engine.ErrUnreachable) || errors.Is(err, engine.ErrNoSpace) {
			b.Errorf("%s: loaded %s, %v", name, id, err)
		}
	}
	info, err := b.Engine.Info(b.ctx())
	b.must(err)
	all, err := b.Engine.Images(b.ctx())
	b.must(err)
	for _, im := range all {
		if !info.WholeLoads && (slices.Contains(im.Layers, sumOf(layer)) || slices.Contains(im.Layers, sumOf(other))) {
			b.Errorf("an image that was refused is there: %+v", im)
		}
	}
}

func testLoadReader(b *bench) {
	own := errors.New("the reader's own")
	files, m := b.saved(b.Image)
	begin := io.LimitReader(b.pack(files[path.Clean(m.Config)]), 1000)
	_, err := b.Engine.LoadImage(b.ctx(), io.MultiReader(begin, iotest.ErrReader(own)))
	b.is(err, own)
}
