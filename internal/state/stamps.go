package state

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Stamp tells one writing of a goal from another, without reading it.
type Stamp struct {
	Inode    uint64
	Modified time.Time
}

// Stamps are those of all goals there are, by service.
func (d *Dir) Stamps() (map[string]Stamp, error) {
	entries, err := os.ReadDir(d.goalDir())
	if err != nil {
		return nil, hostError(d.path, fmt.Errorf("list goals: %w", err))
	}
	stamps := make(map[string]Stamp, len(entries))
	for _, e := range entries {
		id, isGoal := strings.CutSuffix(e.Name(), ".json")
		if !isGoal || checkID(id) != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it is gone meanwhile
		}
		s := Stamp{Modified: info.ModTime()}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			s.Inode = st.Ino
		}
		stamps[id] = s
	}
	return stamps, nil
}
