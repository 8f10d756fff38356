package cli

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"upgrade", "rollback", "status", "stop", "start", "restart"}
	for word, want := range map[string]string{
		"upgrad": "upgrade", "ugprade": "upgrade", "up": "upgrade", "rollbak": "rollback", "stat": "status",
		"sotp": "stop", "restrat": "restart", "deploy": "", "xyzzy": "", "": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
