//go:build e2e

package fleet

import "strings"

// Bare puts a machine in the host's place that was set up anew: it has its name,
// address and keys, sshd, sudo and a source of packages, and nothing of ours.
func (h *Host) Bare() {
	h.t.Helper()
	must(h.t, script(h.fleet(), "bare", h.name))
	h.bare = true
}

// Whole takes that machine away, and boots the host as it was.
func (h *Host) Whole() {
	h.t.Helper()
	must(h.t, script(h.fleet(), "whole", h.name))
	h.bare = false
}

// fleet is the name of the fleet that it is of.
func (h *Host) fleet() string { return strings.TrimSuffix(h.container, "-"+h.name) }
