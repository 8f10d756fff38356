package nginx

import (
	"net"
	"regexp"
	"strings"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// file is the text of a file with an upstream. All of it but the state of
// hosts is kept as it is, to the byte.
type file struct {
	lines   []string
	servers []line
}

// line is a line with a server of the upstream.
type line struct {
	n             int // in file.lines
	before, after string
	address       string
	params        []string // weight=2, …, without down
	down, drained bool
}

const (
	markDrained = " # conductor: drained"
	markAway    = " # conductor: away"
)

var (
	// A directive that has its line for itself, as people write them.
	serverLine   = regexp.MustCompile(`^(\s*server\s+)("[^"]+"|'[^']+'|[^\s;"'#{}]+)(\s[^;#"'{}]*)?;(.*)$`)
	upstreamLine = regexp.MustCompile(`^\s*upstream\s+("[^"]+"|'[^']+'|[^\s{"']+)\s*\{(.*)$`)
	mark         = regexp.MustCompile(`\s*# conductor: (drained|away)\s*$`)
)

// parse finds the servers of the upstream. A file without upstream blocks has
// the lines of one.
func parse(text, upstream string) (*file, error) {
	f := &file{lines: strings.Split(text, "\n")}
	var blocks []string
	depth, found := 0, false // depth: of braces since the upstream began
	for n, raw := range f.lines {
		code, _, _ := strings.Cut(raw, "#")
		if depth > 0 && strings.ContainsAny(code, "{}") {
			depth += strings.Count(code, "{") - strings.Count(code, "}")
			if depth <= 0 && strings.TrimSpace(code) != "}" {
				return nil, oneALine(n)
			}
		} else if m := upstreamLine.FindStringSubmatch(code); m != nil && depth == 0 {
			blocks = append(blocks, unquote(m[1]))
			if unquote(m[1]) != upstream {
				continue
			}
			if strings.TrimSpace(m[2]) != "" {
				return nil, oneALine(n)
			}
			if found {
				return nil, fault.New(fault.ErrDefinition, "", "line %d: a second upstream %s", n+1, upstream)
			}
			// Lines before the first block are of no upstream.
			depth, found, f.servers = 1, true, nil
		} else if m := serverLine.FindStringSubmatch(raw); m != nil && (depth == 1 || len(blocks) == 0) {
			if more, _, _ := strings.Cut(m[4], "#"); strings.TrimSpace(more) != "" {
				return nil, oneALine(n)
			}
			f.servers = append(f.servers, newLine(n, m))
		}
	}
	if len(blocks) > 0 && !found {
		return nil, fault.New(fault.ErrDefinition, "write balancer.backend as the upstream is called there: "+strings.Join(blocks, ", "),
			"%w: the upstream %s", balancer.ErrUnknown, upstream)
	}
	return f, nil
}

func oneALine(n int) error {
	return fault.New(fault.ErrDefinition, "give each server of the upstream a line of its own", "line %d: more than one thing is on it", n+1)
}

func newLine(n int, m []string) line {
	l := line{n: n, before: m[1], address: m[2], after: m[4]}
	for word := range strings.FieldsSeq(m[3]) {
		if word == "down" {
			l.down = true
			continue
		}
		l.params = append(l.params, word)
	}
	if say := mark.FindStringSubmatch(l.after); say != nil {
		l.drained = l.down && say[1] == "drained"
		l.after = mark.ReplaceAllString(l.after, "")
	}
	return l
}

func (l line) String() string {
	words := append([]string{l.address}, l.params...)
	after := l.after
	if l.down {
		words = append(words, "down")
		if l.drained {
			after += markDrained
		} else {
			after += markAway
		}
	}
	return l.before + strings.Join(words, " ") + ";" + after
}

func (l line) says() string {
	switch {
	case l.drained:
		return "down, by a deploy"
	case l.down:
		return "down"
	}
	return ""
}

// host finds the host's line. A host that has several is in where one is.
func (f *file) host(address string) (line, bool) {
	var at line
	found := false
	for _, l := range f.servers {
		if same(l.address, address) && (!found || at.down && !l.down) {
			at, found = l, true
		}
	}
	return at, found
}

// set changes all lines of the host.
func (f *file) set(address string, down, drained bool) {
	for i := range f.servers {
		l := &f.servers[i]
		if same(l.address, address) {
			l.down, l.drained = down, drained
			f.lines[l.n] = l.String()
		}
	}
}

func (f *file) text() string { return strings.Join(f.lines, "\n") }

// same: both are one address to nginx, whose servers have port 80 unless they
// say another.
func same(a, b string) bool { return whole(a) == whole(b) }

func whole(address string) string {
	address = strings.ToLower(unquote(address))
	if strings.HasPrefix(address, "unix:") {
		return address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = strings.Trim(address, "[]"), "80"
	}
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}

func unquote(word string) string {
	if len(word) >= 2 && (word[0] == '"' || word[0] == '\'') && word[len(word)-1] == word[0] {
		return word[1 : len(word)-1]
	}
	return word
}
