package ship

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// A layer travels as frames. Each is a head of nine bytes (its kind, the length
// of its content, the length of its body) and a body: the content, or the
// content compressed by itself. So a layer can go on after the last whole
// frame that arrived, and one that does not get smaller costs nothing.
const (
	frameSize = 256 << 10 // of content; the last one of a layer may be smaller
	headSize  = 9

	plain      = 0
	compressed = 1

	// gain is what a frame has to lose to be worth being unpacked: a 32th.
	gain = 32
	// maxSkip is how many frames are not tried after some that lost nothing:
	// each time twice as many.
	maxSkip = 16
	// warmUp is how many frames are packed before it is known whether the
	// reader has to wait for them.
	warmUp = 8
)

// Whoever sends and receives shares these; they work side by side.
var (
	encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(frameSize), zstd.WithEncoderCRC(false))
	})
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(frameSize), zstd.WithDecoderLowmem(true))
	})
)

// framer turns content into frames, some ahead of its reader, so that packing
// and sending go on at the same time. While the reader has to wait for frames,
// the processor and not the link is what is scarce, and they go out as they are.
type framer struct {
	ready  chan frame
	free   chan frame
	cancel context.CancelFunc
	done   chan struct{}

	starved atomic.Bool // the reader had to wait for the last frame

	// The reader's.
	now   frame
	rest  []byte
	err   error
	given int64 // bytes of content whose frames were read to their end
}

// frame is one frame, with the buffers that it is made in.
type frame struct {
	wire    []byte // head and body
	content []byte // of frameSize
	size    int    // of content, bytes that are in the frame
	err     error  // nothing follows
}

// ahead is how many frames there are for each framer.
const ahead = 3

// newFramer begins to turn r into frames. It has to be closed.
func newFramer(ctx context.Context, r io.Reader) (*framer, error) {
	z, err := encoder()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &framer{ready: make(chan frame, ahead+1), free: make(chan frame, ahead), cancel: cancel, done: make(chan struct{})}
	for range ahead {
		f.free <- frame{content: make([]byte, frameSize), wire: make([]byte, 0, headSize+frameSize+frameSize/64)}
	}
	go func() {
		defer close(f.done)
		f.run(ctx, r, z)
	}()
	return f, nil
}

// run makes frames until the end of r, or of ctx.
func (f *framer) run(ctx context.Context, r io.Reader, z *zstd.Encoder) {
	skip, left := 0, 0
	for made := 0; ; made++ {
		var b frame
		select {
		case b = <-f.free:
		case <-ctx.Done():
			f.ready <- frame{err: ctx.Err()}
			return
		}
		n, err := io.ReadFull(r, b.content)
		if err == io.ErrUnexpectedEOF {
			err = nil // the next read says EOF
		}
		if err != nil {
			b.err = err
			f.ready <- b
			return
		}
		b.size = n
		content := b.content[:n]
		if left > 0 || made >= warmUp && f.starved.Load() {
			left = max(0, left-1)
			b.wire = append(head(b.wire[:0], plain, n, n), content...)
		} else if b.wire = z.EncodeAll(content, b.wire[:headSize]); len(b.wire)-headSize < n-n/gain {
			skip = 0
			head(b.wire[:0], compressed, n, len(b.wire)-headSize)
		} else {
			skip = min(max(1, 2*skip), maxSkip)
			left = skip
			b.wire = append(head(b.wire[:0], plain, n, n), content...)
		}
		f.ready <- b
	}
}

func head(b []byte, kind byte, content, body int) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(content))
	return binary.BigEndian.AppendUint32(b, uint32(body))
}

// Read reads frames.
func (f *framer) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.now.content != nil {
			f.free <- f.now
		}
		select {
		case f.now = <-f.ready:
			f.starved.Store(false)
		default:
			f.now = <-f.ready
			f.starved.Store(true)
		}
		f.rest, f.err = f.now.wire, f.now.err
		if f.err != nil {
			f.rest = nil
		}
	}
	n := copy(b, f.rest)
	if f.rest = f.rest[n:]; len(f.rest) == 0 {
		f.given += int64(f.now.size)
	}
	return n, nil
}

// Close ends the work ahead, and returns when r is not read any more.
func (f *framer) Close() {
	f.cancel()
	<-f.done
}

// errFrames: what arrived are no frames.
var errFrames = errors.New("not frames of a layer")

// readFrames calls f with the content of each frame, which is valid during the
// call. It returns io.EOF when the frames end between two, and
// io.ErrUnexpectedEOF when they end within one.
func readFrames(r io.Reader, f func(content []byte) error) error {
	z, err := decoder()
	if err != nil {
		return err
	}
	var h [headSize]byte
	body, buffer := make([]byte, frameSize), make([]byte, 0, frameSize)
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		kind, size, length := h[0], binary.BigEndian.Uint32(h[1:]), binary.BigEndian.Uint32(h[5:])
		if kind > compressed || size == 0 || size > frameSize || length > frameSize || kind == plain && length != size {
			return fmt.Errorf("%w: head % x", errFrames, h)
		}
		if _, err := io.ReadFull(r, body[:length]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		content := body[:length]
		if kind == compressed {
			if content, err = z.DecodeAll(content, buffer[:0]); err != nil {
				return fmt.Errorf("%w: %w", errFrames, err)
			}
			if len(content) != int(size) {
				return fmt.Errorf("%w: %d bytes, %d were announced", errFrames, len(content), size)
			}
		}
		if err := f(content); err != nil {
			return err
		}
	}
}
