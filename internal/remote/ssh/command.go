package ssh

import (
	"fmt"
	"strings"

	"conductor/internal/remote"
)

// What farCommand exits with when there is nothing to run.
const (
	noSudo      = 126
	noConductor = 127
)

// farCommand is what every host is made to run. The login shell reads it first,
// whichever it is: in single quotes, without a quote, "!" or "\" in them, it is
// one word to sh, csh and fish alike.
var farCommand = "exec /bin/sh -c '" + strings.Join([]string{
	`PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
	`c=$(command -v conductor) || exit 127`,
	`if [ "$(id -u)" = 0 ]; then exec "$c" session; fi`,
	`command -v sudo >/dev/null || exit 126`,
	`exec sudo -n "$c" session`,
}, "; ") + "'"

// rootCommand is what a host without a conductor is made to run: root's shell,
// which reads all that it does from its input.
var rootCommand = "exec /bin/sh -c '" + strings.Join([]string{
	`PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
	`if [ "$(id -u)" = 0 ]; then exec /bin/sh -s; fi`,
	`command -v sudo >/dev/null || exit 126`,
	`exec sudo -n /bin/sh -s`,
}, "; ") + "'"

// sessionArgs are those of a session on the connection at the socket. No
// configuration is read, and the network is never asked: where the connection
// is gone ssh would else make one of its own, by its own rules.
func sessionArgs(command []string, socket, log, far string) []string {
	args := append([]string{}, command[1:]...)
	return append(args, "-F", "none", "-T", "-S", tokens(socket), "-E", log,
		"-o", "ControlMaster=no", "-o", "ProxyCommand=exit 1", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
		"--", "conductor", far)
}

// tokens has ssh take a path as it is: "%" begins a token.
func tokens(path string) string { return strings.ReplaceAll(path, "%", "%%") }

// byHand is what a person would call.
func byHand(h remote.Host) string {
	if h.Port != 0 {
		return fmt.Sprintf("ssh -p %d %s", h.Port, h.SSH)
	}
	return "ssh " + h.SSH
}
