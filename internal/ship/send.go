package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"conductor/internal/fault"
)

// Report is what it took to bring an image to a host.
type Report struct {
	ID      string // the image's at the host
	Here    bool   // the host had it
	Sent    int    // layers of which something travelled
	Reused  int    // layers that the host had, or its engine
	Resumed int64  // bytes that the host had from a time before
	Content int64  // bytes of layers that travelled, before they were packed
	Bytes   int64  // bytes that travelled as frames
}

// String says it for people: "2.0 MB sent, 1 of 8 layers".
func (r Report) String() string {
	if r.Here {
		return "it was there"
	}
	return fmt.Sprintf("%s sent, %d of %d layers", size(r.Bytes), r.Sent, r.Sent+r.Reused)
}

// Progress is how far a Send is, in bytes of layers.
type Progress struct{ Done, Total int64 }

// tries is how often something is done over where a host has less than it
// said, or something else than was sent.
const tries = 3

// Send brings an image to one host, and gives it names there. What the host has
// is not sent; a Send that was broken off goes on with the next. Several, to
// several hosts, may use one archive at once, each in some 2 MB of memory. progress may
// be nil; it is called in order.
//
// The errors are those of the target and of the engine; fault.ErrImage: what
// arrives at the host is not what was sent.
func Send(ctx context.Context, a *Archive, t Target, names []string, progress func(Progress)) (Report, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	s := sending{a: a, t: t, progress: progress}
	m := Manifest{Question: a.question(), Names: names}
	var missing []string
	for range tries {
		answer, err := t.Layers(ctx, m.Question)
		if err != nil {
			return s.report, err
		}
		if len(answer.Layers) != len(m.Layers) {
			return s.report, fault.New(fault.ErrImage, "", "image %s: the host answers about %d layers, not %d", a.ref, len(answer.Layers), len(m.Layers))
		}
		if s.report.Here = answer.Here; !answer.Here {
			image, err := a.read(ctx)
			if err != nil {
				return s.report, err
			}
			m.Config = image.config
			if err := s.layers(ctx, image, answer, missing); err != nil {
				return s.report, fmt.Errorf("image %s: %w", a.ref, err)
			}
		}
		loaded, err := t.Load(ctx, m)
		if err != nil {
			return s.report, err
		}
		if len(loaded.Missing) == 0 {
			s.report.ID = loaded.ID
			s.report.Reused = max(0, len(m.Layers)-s.report.Sent)
			return s.report, nil
		}
		missing = loaded.Missing
	}
	return s.report, fault.New(fault.ErrImage, "does something on the host remove images or layers? then deploy again",
		"image %s: the host still lacks layers that it was sent: %q", a.ref, missing)
}

// sending is one Send at work.
type sending struct {
	a        *Archive
	t        Target
	progress func(Progress)
	report   Report
}

// layers sends the layers that the host has not, and those that it turned out
// to miss.
func (s *sending) layers(ctx context.Context, image *saved, answer Answer, missing []string) error {
	offsets := map[string]int64{}
	var todo []string
	var p Progress
	for i, l := range image.layers {
		h := answer.Layers[i]
		if _, again := offsets[l]; again || h.Whole && !slices.Contains(missing, l) {
			continue
		}
		if h.Whole || h.Offset < 0 || h.Offset > image.sizes[l] {
			h.Offset = 0
		}
		offsets[l] = h.Offset
		todo = append(todo, l)
		s.report.Resumed += h.Offset
		p.Total += image.sizes[l]
	}
	for _, l := range todo {
		s.report.Sent++
		if err := s.layer(ctx, image, Part{Layer: l, Size: image.sizes[l], Offset: offsets[l]}, p); err != nil {
			return err
		}
		p.Done += image.sizes[l]
		s.progress(p)
	}
	return nil
}

// layer sends one layer.
func (s *sending) layer(ctx context.Context, image *saved, p Part, before Progress) error {
	f, err := os.Open(image.file(p.Layer))
	if err != nil {
		return fault.New(fault.ErrHost, "", "layer: %w", err)
	}
	defer f.Close()
	for range tries {
		if _, err := f.Seek(p.Offset, io.SeekStart); err != nil {
			return fault.New(fault.ErrHost, "", "layer: %w", err)
		}
		h, err := s.put(ctx, f, p, before)
		if err != nil {
			return fmt.Errorf("send layer %s: %w", short(p.Layer), err)
		}
		if h.Whole {
			return nil
		}
		if p.Offset = h.Offset; p.Offset < 0 || p.Offset > p.Size {
			p.Offset = 0
		}
	}
	return fault.New(fault.ErrImage, "", "send layer %s: it does not arrive as it was sent, in %d tries", short(p.Layer), tries)
}

func (s *sending) put(ctx context.Context, f *os.File, p Part, before Progress) (Held, error) {
	frames, err := newFramer(ctx, f)
	if err != nil {
		return Held{}, err
	}
	defer frames.Close()
	h, err := s.t.Put(ctx, p, &meter{frames, func(n int) {
		s.report.Bytes += int64(n)
		s.progress(Progress{before.Done + p.Offset + frames.given, before.Total})
	}})
	s.report.Content += frames.given
	// A target that could not read on tells so in its own words.
	if err != nil && frames.err != nil && !errors.Is(frames.err, io.EOF) {
		err = errors.Join(frames.err, err)
	}
	return h, err
}

// meter tells how much is read.
type meter struct {
	r io.Reader
	f func(n int)
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.f(n)
	return n, err
}
