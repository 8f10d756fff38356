package main

import (
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// signOfLife is how often whoever started the supervisor hears of it where that
// one does not say how often it wants to.
const signOfLife = 15 * time.Second

// notifier tells systemd, or whoever else set NOTIFY_SOCKET, how the supervisor
// is. Where nobody listens, nothing is said.
type notifier struct {
	services func() (int, error) // how many are looked after

	every time.Duration // between two signs of life
	last  time.Time
}

func newNotifier(services func() (int, error)) *notifier {
	n := &notifier{services: services, every: signOfLife}
	if watchdog, err := daemon.SdWatchdogEnabled(false); err == nil && watchdog > 0 {
		n.every = watchdog / 2
	}
	return n
}

func (n *notifier) ready(now time.Time) {
	n.last = now
	n.tell(daemon.SdNotifyReady + n.status())
}

// beat gives a sign of life if it is time for one. It is for the supervisor's
// own loop to call: one that hangs gives none, and is killed and started anew.
func (n *notifier) beat(now time.Time) {
	if now.Sub(n.last) < n.every {
		return
	}
	n.last = now
	n.tell(daemon.SdNotifyWatchdog + n.status())
}

func (n *notifier) stopping() {
	n.tell(daemon.SdNotifyStopping + "\nSTATUS=ends; everything that runs runs on")
}

// status is a line of its own, or nothing where the number cannot be had.
func (n *notifier) status() string {
	count, err := n.services()
	switch {
	case err != nil:
		return ""
	case count == 1:
		return "\nSTATUS=looks after 1 service"
	}
	return fmt.Sprintf("\nSTATUS=looks after %d services", count)
}

// tell cannot do more about a failure than to say the next thing.
func (*notifier) tell(text string) { _, _ = daemon.SdNotify(false, text) }
