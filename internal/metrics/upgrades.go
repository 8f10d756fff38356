package metrics

import (
	"context"
	"slices"
	"time"

	"conductor/internal/state"
)

// outcomes are the words that the history has for how an upgrade ended.
var outcomes = []string{"ok", "failed", "timeout", state.Interrupted}

// overlap is how far back upgrades are read again: two that end at once may
// come into the history in either order, each with its own clock's reading.
const overlap = time.Minute

// countUpgrades counts those that have ended since the last time. A history
// that cannot be read is told by others, and read again the next time.
func (m *Metrics) countUpgrades(ctx context.Context) {
	since := m.begun
	for _, at := range m.ended {
		if at.Add(-overlap).After(since) {
			since = at.Add(-overlap)
		}
	}
	ops, err := m.sources.Upgrades(ctx, since)
	if err != nil {
		return
	}
	for _, op := range ops {
		if _, counted := m.ended[op.ID]; counted || op.Ended.Before(m.begun) {
			continue
		}
		m.ended[op.ID] = op.Ended
		if !m.known[op.Service] {
			continue // it was removed meanwhile
		}
		outcome := op.Outcome
		if !slices.Contains(outcomes, outcome) {
			outcome = "failed"
		}
		m.upgrades.WithLabelValues(op.Service, outcome).Inc()
		m.upgraded.WithLabelValues(op.Service).Observe(op.Ended.Sub(op.Started).Seconds())
	}
	for id, at := range m.ended {
		if at.Before(since) {
			delete(m.ended, id)
		}
	}
}
