// Package e2e tests conductor as its users meet it: the built binary, real
// Docker, real nginx, real load. Its files are built with the tag e2e, and run
// as root:
//
//	go test -tags e2e ./test/e2e
//
// New gives each test an installation of its own (namespace, folder, nginx,
// ports), so that nothing on the machine is touched and tests can run at once.
// CONDUCTOR_TEST_SOAK=1 makes the tests that repeat something do so as often as
// script/soak wants it; CONDUCTOR_TEST_KEEP=1 leaves the folder of a failed test.
package e2e
