package cli

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestDoctor_Disk(t *testing.T) {
	for _, tt := range []struct {
		name string
		fs   syscall.Statfs_t
		err  error
		want level
	}{
		{"enough", syscall.Statfs_t{Bsize: 4096, Bavail: 10 << 30 / 4096}, nil, levelOK},
		{"little", syscall.Statfs_t{Bsize: 4096, Bavail: 1 << 30 / 4096}, nil, levelWarn},
		{"none", syscall.Statfs_t{Bsize: 4096, Bavail: 1 << 20 / 4096}, nil, levelFail},
		{"no inodes", syscall.Statfs_t{Bsize: 4096, Bavail: 10 << 30 / 4096, Files: 1000, Ffree: 5}, nil, levelWarn},
		{"no inodes counted", syscall.Statfs_t{Bsize: 4096, Bavail: 10 << 30 / 4096}, nil, levelOK},
		{"unknown", syscall.Statfs_t{}, errors.New("no such device"), levelWarn},
	} {
		d := doctor{statfs: func(_ string, s *syscall.Statfs_t) error {
			*s = tt.fs
			return tt.err
		}}
		d.disk("disk", "/var/lib/conductor", "state_dir")
		if got := d.findings[0].Level; got != tt.want {
			t.Errorf("%s: %s, want %s: %s", tt.name, got, tt.want, d.findings[0].Text)
		}
		if tt.want == levelFail && d.code() != 9 {
			t.Errorf("%s: exit code %d, want 9", tt.name, d.code())
		}
	}
}

func TestDoctor_Clock(t *testing.T) {
	d := doctor{now: time.Date(1970, 1, 1, 0, 3, 0, 0, time.UTC)}
	d.clock()
	if f := d.findings[0]; f.Level != levelFail || f.Code != 9 {
		t.Errorf("a clock that was never set: %+v", f)
	}
	d = doctor{now: time.Now()}
	d.clock()
	if f := d.findings[0]; f.Level == levelFail {
		t.Errorf("now: %+v", f)
	}
}

func TestDoctor_StateDir(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]level{
		dir:                            levelOK,
		filepath.Join(dir, "new/deep"): levelOK, // made when it is needed
		file:                           levelFail,
		filepath.Join(file, "below"):   levelFail, // nothing can be made there
	} {
		d := doctor{}
		d.stateDir(path)
		if f := d.findings[0]; f.Level != want {
			t.Errorf("%s: %+v, want %s", path, f, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("looking left something behind: %v, %v", entries, err)
	}
}
