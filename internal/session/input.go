package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// maxLine is how long a line after the request may be.
const maxLine = 4 << 10

// readLine reads a line of at most so many bytes, its end not counted. What
// came before an error is returned with it.
func readLine(in *bufio.Reader, most int) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > most+1 || len(line) == most+1 && line[most] != '\n':
			return nil, fmt.Errorf("it is longer than %d bytes", most)
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

// interrupts ends the context when the near end says so. That the input ends is
// no such word: the connection may be cut, and what was begun goes on.
func interrupts(in *bufio.Reader, cancel context.CancelCauseFunc) {
	for {
		line, err := readLine(in, maxLine)
		if err != nil {
			return
		}
		if string(line) == remote.Interrupt {
			cancel(fault.ErrInterrupted)
		}
	}
}

// beats ends the context when the near end lets go, or says nothing, and closes
// take when it says to take the lock.
func beats(ctx context.Context, in *bufio.Reader, take chan struct{}, cancel context.CancelCauseFunc) {
	silent := time.AfterFunc(remote.BeatLost, func() { cancel(remote.ErrSilent) })
	defer silent.Stop()
	for ctx.Err() == nil {
		line, err := readLine(in, maxLine)
		if err != nil {
			cancel(remote.ErrGone)
			return
		}
		if string(line) == remote.Take && take != nil {
			close(take)
			take = nil
		}
		silent.Reset(remote.BeatLost)
	}
}
