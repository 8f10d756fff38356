// Package session is the far end of a connection between conductors: one
// request is read from stdin, done on this host, and answered on stdout.
//
// This file and input.go are the frame: who may say what, and what the input
// means. Each thing that can be asked is a handler; internal/cli puts them
// together. The words of both ends are internal/remote's.
package session

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// requestTimeout is how long the request may take to come.
const requestTimeout = 30 * time.Second

// Call is one request, with its streams.
type Call struct {
	remote.Request
	Stdin io.Reader       // for requests whose Input is Bytes; others: empty
	Take  <-chan struct{} // for Beats: closed when the near end says so
	// Stdout and Stderr fail when nobody reads; but for Bytes also when nobody
	// has read for a minute.
	Stdout, Stderr io.Writer
}

// Handler does a request and writes its answer. Its context ends as Input says:
// with the cause fault.ErrInterrupted for Lines, remote.ErrGone or ErrSilent for
// Beats, remote.ErrGone for Bytes. Its error is told to the near end, with class and hint; the
// handler writes it nowhere.
type Handler func(ctx context.Context, c Call) error

// Exit is the error of a handler that ended with the exit code and has said why
// by itself; nil for 0.
func Exit(code int) error {
	if code == 0 {
		return nil
	}
	return &remote.ExitError{Code: code}
}

// Server is this host's conductor, as others ask it.
type Server struct {
	Version string // of this conductor
	// Code is the exit code of an error.
	Code func(error) int
	// Do has the handlers.
	Do map[remote.Do]Handler
	// Trouble is why there are no more of them; nil: this conductor has no more.
	Trouble error
	// Holds says whether the token of the request holds the fleet's lock of its
	// service now (fault.ErrLocked). It is asked for each request that has one.
	Holds func(ctx context.Context, r remote.Request) error
}

// Serve reads one request and does it. It returns the exit code of the
// process. What still reads stdin when it returns ends with stdin.
func (s *Server) Serve(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	// Without it nothing that follows would be understood; who is there to be
	// told of an error, though, is told by the end of the process.
	if err := remote.Greet(stdout, stderr); err != nil {
		return s.Code(err)
	}
	last := &timed{to: stderr}
	end := remote.EndingOf(s.serve(ctx, stdin, stdout, last), s.Code)
	_ = end.Write(last) // the process ends with the code all the same
	return end.Code
}

func (s *Server) serve(ctx context.Context, stdin io.Reader, stdout io.Writer, stderr *timed) error {
	in := bufio.NewReaderSize(stdin, 64<<10)
	r, err := s.request(ctx, in)
	if err != nil {
		return err
	}
	handler := s.Do[r.Do]
	if handler == nil {
		return cmp.Or(s.Trouble, s.unknown(r))
	}
	c := Call{Request: r, Stdin: strings.NewReader(""), Stdout: &timed{to: stdout}, Stderr: stderr}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	switch r.Do.Input() {
	case remote.Lines:
		go interrupts(in, cancel)
	case remote.Beats:
		take := make(chan struct{})
		c.Take = take
		go beats(ctx, in, take, cancel)
	case remote.Bytes:
		// People may read as slowly as they like.
		c.Stdin, c.Stdout, c.Stderr = in, stdout, stderr.to
		stop, err := watchReader(stdout, func() { cancel(remote.ErrGone) })
		if err != nil {
			return fault.New(fault.ErrHost, "", "watch for the end of the connection: %w", err)
		}
		defer stop()
	}
	if err := s.holds(ctx, r); err != nil {
		return err
	}
	return handler(ctx, c)
}

// request reads the first line.
func (s *Server) request(ctx context.Context, in *bufio.Reader) (remote.Request, error) {
	type read struct {
		line []byte
		err  error
	}
	come := make(chan read, 1)
	go func() {
		line, err := readLine(in, remote.MaxRequest)
		come <- read{line, err}
	}()
	late := time.NewTimer(requestTimeout)
	defer late.Stop()
	wrong := func(err error) (remote.Request, error) {
		return remote.Request{}, fault.New(fault.ErrUsage, "conductor session is what conductor deploy starts over ssh; it is not for people", "read request: %w", err)
	}
	select {
	case got := <-come:
		switch {
		case errors.Is(got.err, io.EOF) && len(got.line) == 0:
			return wrong(errors.New("there is none"))
		case errors.Is(got.err, io.EOF):
			return wrong(errors.New("it was cut off"))
		case got.err != nil:
			return wrong(got.err)
		}
		return remote.Decode(got.line, s.Version)
	case <-late.C:
		return wrong(fmt.Errorf("none has come within %s", requestTimeout))
	case <-ctx.Done():
		return remote.Request{}, fmt.Errorf("read request: %w", context.Cause(ctx))
	}
}

// holds refuses a request whose lock is not held: it fails closed.
func (s *Server) holds(ctx context.Context, r remote.Request) error {
	switch {
	case r.Hold == "" || r.Do == remote.Hold:
		return nil
	case s.Holds == nil && s.Trouble != nil:
		return s.Trouble
	case s.Holds == nil:
		return fault.New(fault.ErrLocked, "", "%s: this host keeps no locks for a fleet", r.Do)
	}
	return s.Holds(ctx, r)
}

func (s *Server) unknown(r remote.Request) error {
	var known []string
	for do := range s.Do {
		known = append(known, string(do))
	}
	slices.Sort(known)
	return fault.New(fault.ErrHost, "bring both to one version",
		"the host's conductor (%s) does not know how to %q, which that of %s asks for; it knows %s", s.Version, r.Do, r.Version, strings.Join(known, ", "))
}
