// Package ship brings an image from one container engine to others without a
// registry: only the layers that a host lacks travel, to several hosts at
// once, and what was broken off goes on where it stopped.
//
// Both ends are here. The sender opens an Archive of an image and calls Send
// for each Target; a host has a Store, which is one. Between the two the rooms
// above put whatever connects hosts. It imports engine and fault; fleet and
// session use it.
package ship

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"slices"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// Target is a host that images are sent to. Every call is safe to repeat and
// to make from several places at once, and may be broken off at any point.
type Target interface {
	// Layers says what of an image the host has.
	Layers(ctx context.Context, q Question) (Answer, error)
	// Put hands over a part of a layer, from its offset to the layer's end, as
	// frames. It returns how much of the layer the host has then. That is the
	// whole layer, unless the host has less than the offset, or what came was
	// not the layer: that is no error, and the sender goes on from there. It
	// may return before it has read everything, where the layer came by
	// another way meanwhile; it does not read on after it has returned.
	Put(ctx context.Context, p Part, frames io.Reader) (Held, error)
	// Load makes the image from the layers that were put and those that the
	// host's engine has, checks that it is the image that was meant, and only
	// then gives it its names.
	Load(ctx context.Context, m Manifest) (Loaded, error)
}

// Question is about an image. It is JSON on its way to a host, as are the
// other types without methods here.
type Question struct {
	ID     string   `json:"id"`     // at the sender
	Layers []string `json:"layers"` // sums (sha256:…) of the layers as tars, from the bottom
}

// Answer is what a host has of an image.
type Answer struct {
	Here   bool   `json:"here"`   // the image itself, by this ID
	Layers []Held `json:"layers"` // one for each of the question's
}

// Held is what a host has of one layer.
type Held struct {
	Whole  bool  `json:"whole"`
	Offset int64 `json:"offset"` // bytes that were received and need not come again
}

// Part is a part of a layer that travels.
type Part struct {
	Layer  string `json:"layer"`  // its sum
	Size   int64  `json:"size"`   // bytes of the whole layer
	Offset int64  `json:"offset"` // bytes of it that do not travel
}

// Manifest is what makes an image of layers.
type Manifest struct {
	Question
	// Config is the image's configuration, to the byte. It may be nil where
	// the host has the image itself.
	Config []byte `json:"config,omitempty"`
	// Names are given to the image.
	Names []string `json:"names"`
}

// Loaded is what became of a manifest.
type Loaded struct {
	// ID is the image's at the host. It is that of the sender, unless one of
	// the two engines keeps its images in containerd: then an ID is that of a
	// manifest, which depends on how the image came there.
	ID string `json:"id"`
	// Missing are layers that have to be put first; then nothing was loaded.
	Missing []string `json:"missing,omitempty"`
}

// What is more than this is no image, but an attack or a mistake.
const (
	maxLayers = 1 << 10
	maxConfig = 8 << 20
)

var sumForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// check says what is wrong with a question. What comes from elsewhere becomes
// names of files: nothing but sums may pass.
func (q Question) check() error {
	if !sumForm.MatchString(q.ID) {
		return fault.New(fault.ErrUsage, "", "image %q: not an ID (sha256:…)", q.ID)
	}
	if len(q.Layers) == 0 || len(q.Layers) > maxLayers {
		return fault.New(fault.ErrImage, "", "image %s: it has %d layers, and can be shipped with 1 to %d", q.ID, len(q.Layers), maxLayers)
	}
	for _, l := range q.Layers {
		if err := checkSum(l); err != nil {
			return fmt.Errorf("image %s: %w", q.ID, err)
		}
	}
	return nil
}

func checkSum(layer string) error {
	if !sumForm.MatchString(layer) {
		return fault.New(fault.ErrUsage, "", "layer %q: not a sum (sha256:…)", layer)
	}
	return nil
}

// chains returns for each layer the sum that stands for it and all below it.
// Engines find a layer by that.
func chains(layers []string) []string {
	out := slices.Clone(layers)
	for i := 1; i < len(out); i++ {
		out[i] = sum([]byte(out[i-1] + " " + layers[i]))
	}
	return out
}

// chainsOf returns the chains of all images.
func chainsOf(images []engine.Image) map[string]bool {
	all := map[string]bool{}
	for _, im := range images {
		for _, c := range chains(im.Layers) {
			all[c] = true
		}
	}
	return all
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// bare is a sum without its algorithm, as a file's name.
func bare(sum string) string { return sum[len("sha256:"):] }

// short is enough of a sum for people.
func short(sum string) string { return sum[:len("sha256:")+12] }
