package ship

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// framed returns content as frames, read by a reader that is never waited for.
func framed(t testing.TB, content []byte) []byte {
	t.Helper()
	f, err := newFramer(context.Background(), bytes.NewReader(content))
	must(t, err)
	defer f.Close()
	var out bytes.Buffer
	_, err = io.Copy(&out, f)
	must(t, err)
	return out.Bytes()
}

func unframed(wire []byte) (content []byte, err error) {
	err = readFrames(bytes.NewReader(wire), func(b []byte) error {
		content = append(content, b...)
		return nil
	})
	return content, err
}

func TestFrames_ComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var content []byte
		for _, p := range rapid.SliceOfN(rapid.Custom(func(r *rapid.T) []byte {
			n := rapid.IntRange(0, 3*frameSize/2).Draw(r, "bytes")
			if rapid.Bool().Draw(r, "noise") {
				return noise(uint64(n), n)
			}
			return bytes.Repeat([]byte("a layer of words. "), n/18+1)[:n]
		}), 0, 5).Draw(r, "parts") {
			content = append(content, p...)
		}
		wire := framed(t, content)
		got, err := unframed(wire)
		if err != io.EOF || !bytes.Equal(got, content) {
			r.Fatalf("%d bytes came out as %d: %v", len(content), len(got), err)
		}
		if most := len(content) + headSize*(len(content)/frameSize+1); len(wire) > most {
			r.Fatalf("%d bytes became %d", len(content), len(wire))
		}
		// Cut anywhere: whole frames are there, and an end within one is told.
		cut := rapid.IntRange(0, len(wire)).Draw(r, "cut")
		begin, err := unframed(wire[:cut])
		if !bytes.HasPrefix(content, begin) || len(begin)%frameSize != 0 && len(begin) != len(content) {
			r.Fatalf("cut after %d: %d bytes came out", cut, len(begin))
		}
		if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			r.Fatalf("cut after %d: %v", cut, err)
		}
	})
}

// slow is a link: each frame takes longer to go than the next takes to pack.
type slow struct {
	f   *framer
	out bytes.Buffer
}

func (s *slow) run(t *testing.T) {
	b := make([]byte, 32<<10)
	for {
		for len(s.f.rest) == 0 && len(s.f.ready) == 0 && !closed(s.f.done) { // it is busy with what went before
		}
		n, err := s.f.Read(b)
		s.out.Write(b[:n])
		if err == io.EOF {
			return
		}
		must(t, err)
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFrames_ArePackedWhereTheLinkIsSlow(t *testing.T) {
	content := bytes.Repeat([]byte(strings.Repeat("a layer of words. ", 50)+"\n"), 20000)
	f, err := newFramer(t.Context(), bytes.NewReader(content))
	must(t, err)
	defer f.Close()
	s := slow{f: f}
	s.run(t)
	if got, err := unframed(s.out.Bytes()); err != io.EOF || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes came out as %d: %v", len(content), len(got), err)
	}
	if s.out.Len() > len(content)/20 {
		t.Errorf("%d bytes of words became %d", len(content), s.out.Len())
	}
}

func TestFrames_ReaderFailsAndContextEnds(t *testing.T) {
	own := errors.New("bad disk")
	f, err := newFramer(t.Context(), io.MultiReader(bytes.NewReader(noise(1, 2*frameSize)), iotest.ErrReader(own)))
	must(t, err)
	n, err := io.Copy(io.Discard, f)
	if !errors.Is(err, own) || n != 2*(frameSize+headSize) {
		t.Errorf("%d bytes, %v", n, err)
	}
	f.Close()

	ctx, cancel := context.WithCancel(t.Context())
	f, err = newFramer(ctx, endless{})
	must(t, err)
	_, err = f.Read(make([]byte, 1))
	must(t, err)
	cancel()
	if _, err := io.Copy(io.Discard, f); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.Close()

	f, err = newFramer(t.Context(), endless{})
	must(t, err)
	f.Close() // with nobody reading
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func FuzzFrames(f *testing.F) {
	f.Add(framed(f, []byte("a layer")))
	f.Add(framed(f, bytes.Repeat([]byte("a layer"), 10000)))
	f.Add(head(nil, compressed, frameSize, 4))
	f.Add(head(nil, plain, 1<<31, 1<<31))
	f.Fuzz(func(t *testing.T, wire []byte) {
		err := readFrames(bytes.NewReader(wire), func(b []byte) error {
			if len(b) == 0 || len(b) > frameSize {
				t.Errorf("a frame of %d bytes", len(b))
			}
			return nil
		})
		if err == nil {
			t.Error("it has no end")
		}
	})
}
