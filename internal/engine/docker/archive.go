package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// inContainerd says whether images are kept by containerd. Such an engine
// takes an archive without a layer for good, and has an image then that cannot
// be run; the graph drivers look for each layer among their own first.
func inContainerd(driver [][2]string) bool {
	return slices.Contains(driver, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
}

// Images returns the local images, ordered by ID. The engine's list does not
// tell the layers.
func (e *Engine) Images(ctx context.Context) ([]engine.Image, error) {
	if err := e.agree(ctx); err != nil {
		return nil, err
	}
	list, err := e.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, e.fail(ctx, err, "list images")
	}
	var all []engine.Image
	for _, i := range list.Items {
		im, err := e.Image(ctx, i.ID)
		if errors.Is(err, engine.ErrNotFound) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, im)
	}
	slices.SortFunc(all, func(a, b engine.Image) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// SaveImage writes an image as a tar.
func (e *Engine) SaveImage(ctx context.Context, ref string, w io.Writer) error {
	// An answer of success comes before the engine has looked for the image,
	// and a name without a tag would be all of that repository.
	im, err := e.Image(ctx, ref)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	body, err := e.api.ImageSave(ctx, []string{im.ID})
	if err != nil {
		return e.fail(ctx, err, "save image %s", ref)
	}
	defer body.Close()
	to := &sink{w: w}
	_, err = io.Copy(to, body)
	return e.copied(ctx, err, "save image "+ref, to)
}

// LoadImage reads a tar of one image, and returns the image's ID.
func (e *Engine) LoadImage(ctx context.Context, archive io.Reader) (id string, err error) {
	if err := e.agree(ctx); err != nil {
		return "", err
	}
	from := &source{r: archive}
	body, err := e.api.ImageLoad(ctx, from, client.ImageLoadWithQuiet(true))
	if own := from.err.Load(); own != nil {
		return "", fmt.Errorf("load image: %w", *own)
	}
	if err != nil {
		return "", e.fail(ctx, err, "load image")
	}
	defer body.Close()
	ref, err := loaded(body)
	if err != nil {
		return "", e.fail(ctx, err, "load image")
	}
	im, err := e.Image(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	return im.ID, nil
}

// loaded returns what the engine's report of a load names the image. What goes
// wrong once the answer has begun is a line of the report.
func loaded(report io.Reader) (ref string, err error) {
	var names []string
	for d := json.NewDecoder(report); ; {
		var line struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		if err := d.Decode(&line); err == io.EOF {
			break
		} else if err != nil {
			return "", err
		}
		if line.Error != "" {
			return "", &answer{errors.New(line.Error)}
		}
		for text := range strings.Lines(line.Stream) {
			text = strings.TrimSpace(text)
			if m := loadedImage.FindStringSubmatch(text); m != nil {
				names = append(names, m[1])
			}
			// The image is there then, and cannot be run.
			if strings.HasPrefix(text, "Error unpacking image") {
				return "", &answer{errors.New(text)}
			}
		}
	}
	if len(names) == 0 {
		return "", &answer{errors.New("the engine names no image that it has loaded")}
	}
	return names[0], nil
}

var loadedImage = regexp.MustCompile(`^Loaded image(?: ID)?: (\S+)$`)

// source is a reader that remembers its error. The client may still be reading
// when it has the engine's answer.
type source struct {
	r   io.Reader
	err atomic.Pointer[error]
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err.Store(&err)
	}
	return n, err
}
