package notify

import (
	"context"
	"time"
)

const (
	// quiet is how long nothing has to change before a message is sent, and
	// gathering how long it is put off at most.
	quiet     = 2 * time.Second
	gathering = 10 * time.Second
	// pause is the first one between tries, and longest the longest: each is
	// twice the one before.
	pause   = time.Second
	longest = 2 * time.Minute
	// patience is for how long a message is tried.
	patience = 15 * time.Minute
	// attempt bounds one try, whatever the target does.
	attempt = 30 * time.Second
)

// serve sends what is in the inbox, until ctx is done and all was tried.
func (n *Notifier) serve(ctx, last context.Context, b *inbox) {
	for ctx.Err() == nil {
		b.gather(ctx)
		if m, ok := b.take(); ok {
			n.deliver(ctx, last, b, m)
		}
	}
	// What came while the last message was being sent.
	if m, ok := b.take(); ok {
		n.deliver(ctx, last, b, m)
	}
}

// deliver sends a message, again and again where it has to. Once ctx is done it
// tries no more than once.
func (n *Notifier) deliver(ctx, last context.Context, b *inbox, m Message) {
	begun := time.Now()
	for i, wait := 0, pause; ; i, wait = i+1, min(2*wait, longest) {
		left := patience - time.Since(begun)
		giveUp := left <= 0 || ctx.Err() != nil
		err := send(last, b.target, m)
		if err == nil {
			n.sent.Add(1)
			return
		}
		if giveUp || i == 0 {
			n.warn(b.target, giveUp, err)
		}
		if giveUp {
			n.failed.Add(1)
			b.lose(m)
			return
		}
		timer := time.NewTimer(min(wait, left))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func send(ctx context.Context, t Target, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return t.Send(ctx, m)
}

func (n *Notifier) warn(t Target, givenUp bool, err error) {
	if n.opts.Warn != nil {
		n.opts.Warn(t.Name(), givenUp, err)
	}
}
