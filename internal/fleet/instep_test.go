package fleet

import (
	"testing"

	"conductor/internal/fault"
)

// A definition that was edited where the deploy runs, and not sent to the hosts,
// would not be deployed: whoever edited it is told.
func TestDeploy_DefinitionHereIsAnother(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
		d.Definition, d.Synced = "edited", []string{"web02", "web03"}
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrDefinition, "shop on web02 is not the one that is here")
		if len(f.said) > 0 {
			t.Errorf("something was done: %v", f.said)
		}
		// Those of hosts that others write are not compared with what is here.
		d.Synced = nil
		if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
			t.Error(err)
		}
		d.Revision, d.Definition, d.Synced = "v3", "d", f.order
		if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
			t.Error(err)
		}
	})
}

// A rollback goes to what all hosts have kept, and begins nothing else.
func TestDeploy_RollsBackToWhatIsKept(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
		f.change(func() {
			f.hosts["web01"].Kept, f.hosts["web02"].Kept = []string{"v0", "v2"}, []string{"v0"}
		})
		d.Rollback = true
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUsage, "web02 has kept no release of v2", "it has kept v0", "web03 has kept no release of v2", "none at all")
		if len(f.said) > 0 {
			t.Errorf("something was done: %v", f.said)
		}
		f.change(func() {
			f.hosts["web02"].Kept, f.hosts["web03"].Live = []string{"v2"}, "v2"
		})
		if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
			t.Error(err)
		}
		wantRuns(t, f, "v2+ v2+ v2+")
	})
}
