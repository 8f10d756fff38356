package converge

import (
	"context"
	"strings"
	"syscall"
	"time"

	"conductor/internal/engine"
)

// lateNews is how long the engine may take to tell that what was killed was
// killed for its memory.
const lateNews = time.Second

// whyEnded returns the container as it ended. Where it was killed, and its memory
// is limited, the engine may hear later than of the end that this was why, or
// never: it has it from a helper that looks when the kernel wakes it, and finds
// nothing where the container is cleared up by then. The kernel has known since
// before the end.
func (h *Host) whyEnded(ctx context.Context, id string, limit int64) (c engine.Container, err error) {
	for first := true; ; first = false {
		c, err = h.Engine.Inspect(ctx, id)
		if err != nil || c.OOMKilled || limit == 0 || c.State != engine.Exited || c.ExitCode != codeKilled {
			return c, err
		}
		if first && h.KilledForMemory != nil && h.KilledForMemory(id) {
			c.OOMKilled = true
			return c, nil
		}
		if time.Since(c.FinishedAt) > lateNews {
			return c, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}

// KilledForMemory tells whether the kernel's log says that it killed a process of
// the container because its memory is limited; false, too, where it may not be
// read. id is the full one.
func KilledForMemory(id string) bool {
	const readAll = 3 // SYSLOG_ACTION_READ_ALL of syslog(2): the end of the log, which stays
	log := make([]byte, 256<<10)
	n, err := syscall.Klogctl(readAll, log)
	if err != nil || id == "" {
		return false
	}
	for line := range strings.Lines(string(log[:n])) {
		if strings.Contains(line, "oom-kill:constraint=CONSTRAINT_MEMCG") && strings.Contains(line, id) {
			return true
		}
	}
	return false
}
