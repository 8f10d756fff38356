package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"conductor/internal/fault"
)

// Dialogue asks one host questions of one kind by a session that stays open
// between them: to begin one costs several times what a question does, in
// processes there and in ways over the link. It ends with the transport.
//
// A question may be asked a second time: whether a session that was kept is
// still there is known only when it does not answer.
//
// Its methods are safe for concurrent use; the host answers in the order in
// which it was asked.
type Dialogue struct {
	Transport Transport
	Host      Host
	Request   Request // but for its Body, which is a question; Do.Lasts

	mu   sync.Mutex
	open *talk // nil: there is none
}

// talk is one session. Its fields are guarded by the dialogue's mu, but for
// those of one stream.
type talk struct {
	asked   chan struct{} // has room for one: there is a question to be sent
	over    chan struct{} // closed: none will come
	cut     func()        // ends it without an answer
	isCut   bool
	answers int       // that have come
	waiting []*asking // for the others, in their order

	unsent []byte // questions
	said   []byte // what has come of an answer; the output's own
}

// asking is one question.
type asking struct {
	end   chan struct{} // closed: it is over, and the others say how
	text  []byte        // the answer
	err   error
	again bool // it was not answered, for no reason of its own
}

// Ask asks the question, and reads the answer into answer; both are JSON. Errors
// are those of Transport.Do. When ctx ends nobody waits for the answer any more,
// and what was asked may have been done.
func (d *Dialogue) Ask(ctx context.Context, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", d.Host.Name, context.Cause(ctx))
		}
		t, a := d.ask(ctx, body)
		select {
		case <-a.end:
		case <-ctx.Done():
			d.leave(t, a)
			return fmt.Errorf("%s: %w", d.Host.Name, context.Cause(ctx))
		}
		switch {
		case a.again:
			continue
		case a.err != nil:
			return a.err
		}
		if err := json.Unmarshal(a.text, answer); err != nil {
			return fmt.Errorf("%s: read the answer to %s: %w", d.Host.Name, d.Request.Do, err)
		}
		return nil
	}
}

// ask puts the question behind those that wait, in a new session where there is
// none.
func (d *Dialogue) ask(ctx context.Context, question []byte) (*talk, *asking) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &asking{end: make(chan struct{})}
	if t := d.open; t != nil {
		t.waiting = append(t.waiting, a)
		t.unsent = append(append(t.unsent, question...), '\n')
		select {
		case t.asked <- struct{}{}:
		default: // it knows
		}
		return t, a
	}
	ctx, cut := context.WithCancel(context.WithoutCancel(ctx))
	t := &talk{asked: make(chan struct{}, 1), over: make(chan struct{}), cut: cut, waiting: []*asking{a}}
	d.open = t
	r := d.Request
	r.Body = question
	go func() {
		defer cut()
		d.end(t, d.Transport.Do(ctx, d.Host, r, Streams{Stdin: talkInput{d, t}, Stdout: talkOutput{d, t}}))
	}()
	return t, a
}

// leave ends the session in which nobody waits for the answer that comes next:
// the others are asked anew.
func (d *Dialogue) leave(t *talk, a *asking) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(t.waiting) > 0 && t.waiting[0] == a {
		d.drop(t)
		t.isCut = true
		t.cut()
	}
}

// drop has no question asked in the session any more.
func (d *Dialogue) drop(t *talk) {
	if d.open == t {
		d.open = nil
	}
}

// end tells those that wait how the session ended. The first was being answered,
// and an error is of that one, or of all.
func (d *Dialogue) end(t *talk, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(t)
	close(t.over)
	if err == nil {
		err = fault.New(fault.ErrHost, "", "%s: its conductor ended without an answer to %s", d.Host.Name, d.Request.Do)
	}
	// One that has answered may have been cut long ago.
	again := t.isCut || t.answers > 0 && errors.Is(err, ErrCut)
	_, exited := errors.AsType[*ExitError](err)
	for n, a := range t.waiting {
		a.err, a.again = err, again || n > 0 && exited && !errors.Is(err, fault.ErrUnreachable)
		close(a.end)
	}
	t.waiting = nil
}

// talkInput is what the far end reads: questions, a line each.
type talkInput struct {
	*Dialogue
	*talk
}

func (in talkInput) Read(p []byte) (int, error) {
	for {
		in.mu.Lock()
		n := copy(p, in.unsent)
		in.unsent = in.unsent[n:]
		in.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-in.asked:
		case <-in.over:
			return 0, io.EOF
		}
	}
}

// talkOutput takes what the far end says: answers, a line each.
type talkOutput struct {
	*Dialogue
	*talk
}

func (out talkOutput) Write(p []byte) (int, error) {
	if len(out.said)+len(p) > maxAnswer {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	out.said = append(out.said, p...)
	for {
		text, rest, whole := bytes.Cut(out.said, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if !out.answer(text) {
			return 0, errors.New("it answers what it was not asked")
		}
		out.said = bytes.Clone(rest)
	}
}

// answer gives the text to whom it is for; false: nobody waits.
func (out talkOutput) answer(text []byte) bool {
	out.mu.Lock()
	defer out.mu.Unlock()
	if len(out.waiting) == 0 {
		return false
	}
	a := out.waiting[0]
	out.waiting = out.waiting[1:]
	out.answers++
	a.text = text
	close(a.end)
	return true
}
