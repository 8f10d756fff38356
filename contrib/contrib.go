// Package contrib has what the program carries with it for the hosts that it
// installs itself on: the files of its Debian package.
//
// internal/provision alone imports it.
package contrib

import "embed"

// Files are those of the package that are not made by the program.
//
//go:embed package systemd init.d
var Files embed.FS
