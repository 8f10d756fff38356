package remote

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Bare is a Transport to hosts that may have no conductor yet.
type Bare interface {
	// Root has root's shell on the host read the script as its input, as it
	// comes. Streams.Stdin is of no use then. The exit code of the script is the
	// session's, by the table of conductor's own. Once the script has come whole
	// it goes on to its end, whatever becomes of the connection; what it says
	// then is heard by nobody. The errors are those of Transport.Do.
	Root(ctx context.Context, host Host, script io.Reader, s Streams) error
}

// Preamble begins a script for a shell, which then says what a far end says:
// where its answer begins, and how it ended.
func Preamble() string {
	octal := strings.NewReplacer("\x00", `\000`, "\n", `\n`)
	ending := octal.Replace(endingStart) + `{"code":%d}` + octal.Replace(endingEnd)
	greeting := octal.Replace(Greeting)
	return fmt.Sprintf("trap 'c=$?; printf '\\''%s'\\'' $c >&2' EXIT\nprintf '%s'\nprintf '%s' >&2\n", ending, greeting, greeting)
}
