package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"conductor/internal/fault"
	"conductor/internal/proxy"
)

// install is how a Debian host comes to what the dynamic mode needs.
const install = "apt-get install -y libnginx-mod-http-lua lua-resty-core"

func refused(hint, format string, args ...any) error {
	return fault.New(fault.ErrProxyRefused, hint, "%w: "+format, append([]any{proxy.ErrRefused}, args...)...)
}

func unsupported(format string, args ...any) error {
	return fault.New(fault.ErrHost,
		"the dynamic mode needs Debian's packages libnginx-mod-http-lua and lua-resty-core: "+install,
		"%w: "+format, append([]any{proxy.ErrUnsupported}, args...)...)
}

// unreachable wraps why no answer was had. The caller's own end goes first.
func (p *Proxy) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, errNotProved) {
			return fmt.Errorf("%w: %w", cause, err)
		}
	}
	hint := "start nginx (systemctl start nginx); if it runs: does its http block include " + filepath.Join(p.c.ConfigDir, "*.conf") + "?"
	if errors.Is(err, errTwoMasters) {
		hint = "end the upgrade of nginx's binary (kill -QUIT the old master), then run the command again"
	}
	return fault.New(fault.ErrUnreachable, hint, "%w: %w", proxy.ErrUnreachable, err)
}

// nginxPlace finds what nginx says and where the mistake is. Once nginx has
// opened its log, its lines on stderr look like those of the log.
var nginxPlace = regexp.MustCompile(`(?m)^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )\[(emerg|alert|error)\] (?:\d+#\d+: )?(.*?)(?: in (\S+):(\d+))?$`)

// mistake returns the gravest thing that nginx said.
func mistake(out string) (message, file, line string, ok bool) {
	for _, level := range []string{"emerg", "alert", "error"} {
		for _, m := range nginxPlace.FindAllStringSubmatch(out, -1) {
			if m[1] == level {
				return m[2], m[3], m[4], true
			}
		}
	}
	return "", "", "", false
}

// tested runs nginx's own test on the document and says whose fault it is.
func (p *Proxy) tested(ctx context.Context, d document) error {
	out, err := p.test(ctx, d.bytes())
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return p.testFailed(out, err)
}

func (p *Proxy) testFailed(out string, err error) error {
	command := strings.Join(p.c.Test, " ")
	message, file, line, ok := mistake(out)
	if !ok {
		if errors.Is(err, os.ErrNotExist) || isNotFound(err) {
			return fault.New(fault.ErrHost, "install nginx, or set proxy.test to the command that tests its configuration",
				"%w: run %s: %w", proxy.ErrUnsupported, command, err)
		}
		return refused("run the command by hand", "%s: %w: %s", command, err, lastLine(out))
	}
	ours := file == p.File()
	switch {
	case ours && missingModule(message), strings.Contains(message, "resty.core"), strings.Contains(message, "ndk_"):
		return unsupported("%s: %s", command, message)
	case strings.Contains(message, `"set_real_ip_from"`):
		return unsupported("%s: %s (proxy.trusted needs nginx's realip module)", command, message)
	case file == "":
		return refused("put it right, then run the command again", "%s: %s", command, message)
	case ours && strings.Contains(message, "is duplicate"):
		return refused("another file of nginx has the same directive; nginx allows it once: run two installations in two nginx",
			"%s: %s in %s:%s", command, message, file, line)
	case ours:
		return refused("Conductor wrote that line: another file of nginx may contradict it",
			"%s: %s in %s:%s", command, message, file, line)
	default:
		return refused("put "+file+":"+line+" right; it is no file of Conductor's", "%s: %s in %s:%s", command, message, file, line)
	}
}

// missingModule: the directives that stock nginx without Lua does not know.
func missingModule(message string) bool {
	return strings.Contains(message, "unknown directive") &&
		(strings.Contains(message, "lua_") || strings.Contains(message, "_by_lua"))
}

func isNotFound(err error) bool {
	var e interface{ Unwrap() error }
	return errors.As(err, &e) && strings.Contains(err.Error(), "executable file not found")
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// included finds out whether nginx reads the file at all: what nginx dumps of
// its configuration must have a word of the file's. Only where the test command
// is nginx itself, which knows the flag.
func (p *Proxy) included(ctx context.Context) error {
	if !p.local() {
		return nil
	}
	const word = "conductor_is_included"
	out, err := p.test(ctx, []byte("# "+word+"\n"), "-T")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil && !strings.Contains(out, word) {
		return p.notIncluded()
	}
	return nil
}

func (p *Proxy) notIncluded() error {
	return refused("add to the http block of nginx: include "+filepath.Join(p.c.ConfigDir, "*.conf")+";",
		"nginx does not read %s: is `include %s;` in the http block?", p.File(), filepath.Join(p.c.ConfigDir, "*.conf"))
}

// reloadFailed explains a reload command that failed.
func (p *Proxy) reloadFailed(ctx context.Context, out string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	command := strings.Join(p.c.Reload, " ")
	if _, file, _, _ := mistake(out); file != "" {
		return p.testFailed(out, err)
	}
	return fault.New(fault.ErrUnreachable, "start nginx (systemctl start nginx), then run the command again",
		"%w: %s: %w: %s", proxy.ErrUnreachable, command, err, lastLine(out))
}

// notTaken finds out why nginx did not come to serve what it was told to, while
// the refused file is still in place; nil: no reason is to be found.
func (p *Proxy) notTaken(ctx context.Context, want document, admin addr, master int) error {
	if out, err := run(ctx, p.c.Test); err != nil && ctx.Err() == nil {
		return p.testFailed(out, err)
	}
	if err := p.portsFree(want, admin, master); err != nil {
		return err
	}
	return p.included(ctx)
}
