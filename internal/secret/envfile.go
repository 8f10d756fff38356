package secret

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

// readEnvFiles reads the files, a later one over an earlier one. It goes on
// after an error, to report all of them.
func readEnvFiles(files []spec.EnvFile) (map[string]string, []error) {
	env := map[string]string{}
	var errs []error
	for _, f := range files {
		b, err := readFile(f.Path)
		if errors.Is(err, os.ErrNotExist) && !f.Required {
			continue
		}
		if err != nil {
			hint := fileHint(err, f.Path)
			if errors.Is(err, os.ErrNotExist) {
				hint += "; required: false lets it be missing"
			}
			errs = append(errs, fault.New(fault.ErrHost, hint, "read env_file: %w", err))
			continue
		}
		if err := parseEnv(f.Path, string(b), env); err != nil {
			errs = append(errs, err)
		}
	}
	return env, errs
}

// parseEnv reads KEY=VALUE lines as Compose does, without interpolation:
//
//	KEY=value # comment        the value ends before " #" and has no spaces at its ends
//	KEY='it\'s $as \n it is'   all but \' is literal; may go over lines
//	KEY="tab:\t, quote:\""     \n \r \t \" \\ \$ are escapes; may go over lines
//	export KEY=value           export is passed over
//
// Errors name the file and line, and nothing of the line but its key: a line
// that is wrong may still have a password in it.
func parseEnv(file, text string, env map[string]string) error {
	p := envParser{file: file, rest: strings.TrimPrefix(text, "\ufeff"), line: 1}
	for p.rest != "" {
		key, value, ok, err := p.pair()
		if err != nil {
			return err
		}
		if ok {
			env[key] = value
		}
	}
	return nil
}

type envParser struct {
	file string
	rest string // not read yet
	line int    // of rest, from 1
}

func (p *envParser) fail(line int, hint, format string, args ...any) error {
	return fault.New(fault.ErrHost, hint, "%s:%d: %s", p.file, line, fmt.Sprintf(format, args...))
}

// pair reads one line, or more where a quoted value goes over them; ok is
// false where there is none on it.
func (p *envParser) pair() (key, value string, ok bool, err error) {
	first, _, _ := strings.Cut(p.rest, "\n")
	line := strings.TrimSpace(first)
	if line == "" || line[0] == '#' {
		p.skip()
		return "", "", false, nil
	}
	const form = "write KEY=VALUE, one a line"
	before, _, found := strings.Cut(first, "=")
	if !found {
		// What stands here may be the second line of a value.
		return "", "", false, p.fail(p.line, form+"; put a value that goes over several lines in quotes", "no = in this line")
	}
	key = strings.TrimSpace(before)
	if word, k, cut := strings.Cut(key, " "); cut && word == "export" {
		key = strings.TrimSpace(k)
	}
	if !isKey(key) {
		return "", "", false, p.fail(p.line, form+"; a key has letters, digits, _ . and -, and does not begin with a digit", "what stands before = is not a key")
	}
	p.rest = strings.TrimLeft(p.rest[len(before)+1:], " \t")
	if p.rest != "" && (p.rest[0] == '\'' || p.rest[0] == '"') {
		value, err = p.quoted(key)
		return key, value, err == nil, err
	}
	raw, _, _ := strings.Cut(p.rest, "\n")
	p.skip()
	if strings.HasPrefix(raw, "#") {
		raw = ""
	}
	for i := 1; i < len(raw); i++ {
		if raw[i] == '#' && (raw[i-1] == ' ' || raw[i-1] == '\t') {
			raw = raw[:i]
		}
	}
	return key, strings.TrimSpace(raw), true, nil
}

// quoted reads a value in quotes and the rest of its last line.
func (p *envParser) quoted(key string) (string, error) {
	quote, start := p.rest[0], p.line
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '\n':
			p.line++
			b.WriteByte(c)
		case c == '\\' && i+1 < len(p.rest):
			next := p.rest[i+1]
			if e, ok := escapes[quote][next]; ok {
				b.WriteByte(e)
				i++
			} else {
				b.WriteByte(c)
			}
		case c == quote:
			tail, _, _ := strings.Cut(p.rest[i+1:], "\n")
			if t := strings.TrimSpace(tail); t != "" && t[0] != '#' {
				return "", p.fail(p.line, "quote the whole value, and put \\ before a quote in it", "%s: there is more after the closing quote", key)
			}
			p.rest = p.rest[i+1:]
			p.skip()
			return b.String(), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(start, "close it, or put \\ before a quote that is part of the value", "%s: the quote is never closed", key)
}

// escapes are what may follow a backslash, by the quotes around it.
var escapes = map[byte]map[byte]byte{
	'"':  {'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\', '$': '$'},
	'\'': {'\'': '\''},
}

// skip passes over the rest of the line.
func (p *envParser) skip() {
	_, p.rest, _ = strings.Cut(p.rest, "\n")
	p.line++
}

func isKey(s string) bool {
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}
