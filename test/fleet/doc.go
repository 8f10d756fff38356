// Package fleet gives tests real hosts: those of script/fleet, with systemd,
// sshd, Docker, nginx and conductor's own package, and a HAProxy before them.
// They can be cut off, slowed, filled up, stopped. Tests alone may import it;
// its files are built with the tag e2e, and run as root:
//
//	go test -tags e2e ./test/fleet
//
// A fleet takes half a minute to come up, so there is one in a process: Main
// takes it down, Up gives it to a test and puts it right again when the test has
// ended. Tests that use it do not run at once.
package fleet
