package ship

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

// part is a layer on its way in, locked.
type part struct {
	file *os.File
	sum  hash.Hash // of what is in the file
	size int64     // bytes in the file
}

// Put receives a part of a layer. The layer counts only once all of it is here
// and its sum is right. Where it is broken off, what came is kept for the next
// Put; where the disk is full it is not, since others need the disk too.
func (s *Store) Put(ctx context.Context, p Part, frames io.Reader) (Held, error) {
	if err := checkSum(p.Layer); err != nil {
		return Held{}, err
	}
	what := "receive layer " + short(p.Layer)
	if p.Size < 0 || p.Offset < 0 || p.Offset > p.Size {
		return Held{}, fault.New(fault.ErrUsage, "", "%s: from %d of %d bytes", what, p.Offset, p.Size)
	}
	if err := s.makeDir(); err != nil {
		return Held{}, err
	}
	h, err := s.held(p.Layer)
	if err != nil || h.Whole || h.Offset < p.Offset {
		return h, err
	}
	if err := s.makeRoom(p.Layer, p.Size-p.Offset); err != nil {
		return h, fmt.Errorf("%s: %w", what, err)
	}
	in, err := s.open(p)
	if err != nil {
		return h, tellSpace(fmt.Errorf("%s: %w", what, err), s.Dir)
	}
	if in == nil { // what there was went meanwhile
		return s.held(p.Layer)
	}
	defer in.file.Close()
	err = s.receive(ctx, in, p, frames)
	switch {
	case errors.Is(err, errWhole):
		return Held{Whole: true}, in.remove()
	case errors.Is(err, errDamaged):
		return Held{}, in.remove()
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Held{}, fmt.Errorf("%s: %w", what, tellSpace(errors.Join(err, in.remove()), s.Dir))
	case err != nil:
		return Held{Offset: in.size}, fmt.Errorf("%s: %d of %d bytes are here: %w", what, in.size, p.Size, err)
	}
	// Parts that nobody writes are of no use any more.
	parts, err := s.parts(p.Layer)
	for _, k := range parts {
		err = errors.Join(err, discard(k.path))
	}
	return Held{Whole: true}, err
}

var (
	// errWhole: the layer came by another way meanwhile.
	errWhole = errors.New("the layer is here")
	// errDamaged: what came is not the layer.
	errDamaged = errors.New("not the layer")
)

// receive appends frames to the part until it is the layer, and makes it whole.
func (s *Store) receive(ctx context.Context, in *part, p Part, frames io.Reader) error {
	whole := s.whole(p.Layer)
	err := io.EOF
	if in.size < p.Size {
		err = readFrames(frames, func(content []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := os.Stat(whole); err == nil {
				return errWhole
			}
			if in.size+int64(len(content)) > p.Size {
				return errDamaged
			}
			n, err := in.file.Write(content)
			in.sum.Write(content[:n])
			if in.size += int64(n); err != nil {
				return err
			}
			if in.size == p.Size {
				return io.EOF
			}
			return nil
		})
	}
	if err == io.EOF && in.size < p.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != io.EOF {
		return err
	}
	if "sha256:"+hex.EncodeToString(in.sum.Sum(nil)) != p.Layer {
		return errDamaged
	}
	// It has its name only when it is sure to be on the disk.
	if err := in.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(in.file.Name(), whole); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.Dir)
}

// open returns the part to go on with, locked, its end at the offset, or nil
// where there is none.
func (s *Store) open(p Part) (*part, error) {
	parts, err := s.parts(p.Layer)
	if err != nil {
		return nil, err
	}
	if p.Offset == 0 {
		for _, k := range parts { // nobody goes on with them
			if err := discard(k.path); err != nil {
				return nil, err
			}
		}
		return s.create(p.Layer)
	}
	var busy []kept
	for _, k := range parts {
		if k.size < p.Offset {
			continue
		}
		f, err := lock(k.path)
		if err != nil {
			return nil, err
		}
		if f == nil {
			busy = append(busy, k)
			continue
		}
		in := &part{file: f, sum: sha256.New()}
		if err := in.resume(p.Offset); err != nil {
			f.Close()
			return nil, err
		}
		return in, nil
	}
	// Somebody else writes it, perhaps for a sender that has gone to sleep.
	// What it has so far is as good as what we would be sent.
	for _, k := range busy {
		in, err := s.copy(p, k.path)
		if err != nil || in != nil {
			return in, err
		}
	}
	return nil, nil
}

func (s *Store) create(layer string) (*part, error) {
	f, err := os.CreateTemp(s.Dir, bare(layer)+"-*"+partSuffix)
	if err != nil {
		return nil, err
	}
	f.Close()
	// Whoever sweeps in between finds it young.
	if f, err = lock(f.Name()); f == nil {
		return nil, err
	}
	return &part{file: f, sum: sha256.New()}, nil
}

// copy makes a part of the beginning of one that somebody else writes.
func (s *Store) copy(p Part, from string) (*part, error) {
	src, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer src.Close()
	in, err := s.create(p.Layer)
	if in == nil {
		return nil, err
	}
	in.size, err = io.Copy(io.MultiWriter(in.file, in.sum), io.LimitReader(src, p.Offset))
	if err != nil || in.size < p.Offset { // whoever writes it went back
		err = errors.Join(err, in.remove())
		in.file.Close()
		return nil, err
	}
	return in, nil
}

// resume cuts the part at an offset, and sums up what is before it.
func (in *part) resume(offset int64) error {
	if err := in.file.Truncate(offset); err != nil {
		return err
	}
	n, err := io.Copy(in.sum, in.file)
	in.size = n
	return err
}

func (in *part) remove() error {
	if err := os.Remove(in.file.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.ErrHost, "", "part of a layer: %w", err)
	}
	return nil
}
