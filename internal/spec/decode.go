package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

// maxFile is the size at which a file is surely no definition. It also bounds
// what hostile input can cost.
const maxFile = 1 << 20

const emptyFile = "the file is empty"

// position is a place in a file, both counted from 1.
type position struct{ line, column int }

// decoder reads one file. It collects problems instead of stopping at the
// first, and remembers where each key stands for the rules that follow.
type decoder struct {
	file     string
	problems Problems
	// at is where the key of a path ("http.port") was written.
	at map[string]position
	// paths are all paths that the file may have, for hints.
	paths []string
	// foreign are keys of the Compose specification that Conductor has in
	// another form, and what to do instead.
	foreign map[string]string
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, at: map[string]position{}}
}

func (d *decoder) fail(at position, hint, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: max(at.line, 1), Column: max(at.column, 1),
		Message: printable(fmt.Sprintf(format, args...)), Hint: printable(hint),
	})
}

// printable escapes what a name in a file could do to a terminal.
func printable(s string) string {
	if _, bad := dirty(s); !bad {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if _, bad := dirty(string(r)); bad {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// failAt reports a problem of the key at path, or of the nearest one around it
// that was written.
func (d *decoder) failAt(path, hint, format string, args ...any) {
	d.fail(d.position(path), hint, strings.ReplaceAll(path, "%", "%%")+": "+format, args...)
}

func (d *decoder) position(path string) position {
	for {
		if at, ok := d.at[path]; ok {
			return at
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return position{1, 1}
		}
		path = path[:i]
	}
}

// has reports whether the key at path was written.
func (d *decoder) has(path string) bool {
	_, ok := d.at[path]
	return ok
}

// value is one node of the file, aliases followed.
type value struct {
	d    *decoder
	node *yaml.Node
	path string // ports[0].target; for messages
	// hidden: the text may be secret, and is not shown in messages.
	hidden bool
}

// load parses the YAML of a file that holds one mapping. ok is false where it
// does not; the problems say why.
func (d *decoder) load(data []byte) (root value, ok bool) {
	if len(data) > maxFile {
		d.fail(position{}, "", "the file is larger than %d bytes", maxFile)
		return root, false
	}
	if at, what := forbidden(data); what != "" {
		d.fail(at, "save the file as plain UTF-8 text", "%s", what)
		return root, false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err)
		return root, false
	}
	var document, second yaml.Node
	if err := loader.Load(&document); err != nil && !empty(err) {
		d.syntax(err)
		return root, false
	}
	if len(document.Content) == 0 || isNull(document.Content[0]) {
		d.fail(position{}, "", "%s", emptyFile)
		return root, false
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.fail(position{second.Line, second.Column}, "one file has one document: remove the ---", "a second document begins")
		return root, false
	case !empty(err):
		d.syntax(err)
		return root, false
	}
	root = value{d: d, node: follow(document.Content[0])}
	if root.node == nil || root.node.Kind != yaml.MappingNode {
		d.fail(at(document.Content[0]), "write KEY: VALUE lines", "the file must be a mapping, is %s", describe(root.node))
		return root, false
	}
	return root, true
}

// empty tells that the stream has no (further) document.
func empty(err error) bool {
	return errors.Is(err, io.EOF) || strings.Contains(err.Error(), "no documents in stream")
}

// forbidden finds what no definition may have in it, with a position, which
// the YAML reader does not give.
func forbidden(data []byte) (position, string) {
	line, column := 1, 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			return position{line, column}, "the text is not valid UTF-8"
		case unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t':
			return position{line, column}, fmt.Sprintf("control character %U", r)
		}
		data = data[n:]
		if column++; r == '\n' {
			line, column = line+1, 1
		}
	}
	return position{}, ""
}

// syntax reports an error of the YAML parser at its position.
func (d *decoder) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		d.fail(position{}, "", "not valid YAML: %s", err)
		return
	}
	at := position{e.Mark.Line, e.Mark.Column}
	message, hint := e.Message, ""
	switch {
	case strings.Contains(message, "cannot start any token"):
		hint = "indent with spaces, not tabs; quote text that begins with @, ` or %"
	case strings.Contains(message, "mapping values are not allowed"):
		hint = "quote text that has a colon and a space in it; check the indentation"
	case strings.Contains(message, "unknown anchor"):
		// What follows the * may be a secret that was meant as text.
		message, hint = "unknown anchor", "quote text that begins with *"
	}
	if e.ContextMsg != "" {
		message = e.ContextMsg + ": " + message
	}
	d.fail(at, hint, "not valid YAML: %s", message)
}

// follow returns the node that an alias stands for; nil for a circle.
func follow(n *yaml.Node) *yaml.Node {
	for range 100 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

func at(n *yaml.Node) position {
	if n == nil {
		return position{}
	}
	return position{n.Line, n.Column}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func (v value) fail(hint, format string, args ...any) {
	if v.path != "" {
		format = strings.ReplaceAll(v.path, "%", "%%") + ": " + format
	}
	v.d.fail(at(v.node), hint, format, args...)
}

// mustBe reports that the value is not what is wanted.
func (v value) mustBe(want, hint string) {
	is := describe(v.node)
	if _, scalar := v.scalar(); scalar && v.hidden {
		is = "other text"
	}
	v.fail(hint, "must be %s, is %s", want, is)
}

// describe says in words what a node is.
func describe(n *yaml.Node) string {
	switch {
	case n == nil:
		return "a reference to itself"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case isNull(n) && n.Value == "":
		return "empty"
	}
	return quote(n.Value)
}

// quote shows text in a message: one line, and not all of a long one.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// child is a node below v, aliases followed. ok is false, and reported, for
// tags that would change what the text means, and for circles.
func (v value) child(n *yaml.Node, path string) (value, bool) {
	c := value{d: v.d, node: follow(n), path: path, hidden: v.hidden}
	if c.node == nil {
		c.node = n
		c.fail("", "refers to itself")
		return c, false
	}
	if c.node.Style&yaml.TaggedStyle != 0 && c.node.Tag != "!!str" {
		c.fail("remove the tag", "the tag %s is not supported", quote(c.node.Tag))
		return c, false
	}
	return c, true
}

// join is the path of a key below v.
func (v value) join(key string) string {
	if v.path == "" {
		return key
	}
	return v.path + "." + key
}

// items returns the elements of a list.
func (v value) items() []value {
	vs := make([]value, 0, len(v.node.Content))
	for i, n := range v.node.Content {
		if c, ok := v.child(n, fmt.Sprintf("%s[%d]", v.path, i)); ok {
			vs = append(vs, c)
		}
	}
	return vs
}

// entry is one key of a mapping, and its value.
type entry struct {
	name string
	key  value
	val  value
}

// entries returns the keys of a mapping with those that are merged in (<<),
// explicit ones first. Keys written twice are reported.
func (v value) entries() []entry {
	var es []entry
	seen := map[string]position{}
	done := map[*yaml.Node]bool{} // a merge can be named often, and in circles
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if done[n] {
			return
		}
		done[n] = true
		own := map[string]position{}
		var merges []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, val := n.Content[i], n.Content[i+1]
			if k.Tag == "!!merge" && k.Kind == yaml.ScalarNode {
				merges = append(merges, val)
				continue
			}
			key := value{d: v.d, node: follow(k), path: v.path, hidden: v.hidden}
			if key.node == nil || key.node.Kind != yaml.ScalarNode {
				key.node = k
				key.fail("", "a key must be text, is %s", describe(follow(k)))
				continue
			}
			name := key.node.Value
			if first, twice := own[name]; twice {
				key.fail("", "%s is written twice, first at line %d", quote(name), first.line)
				continue
			}
			own[name] = at(k)
			if _, over := seen[name]; over {
				continue
			}
			seen[name] = at(k)
			if c, ok := v.child(val, v.join(name)); ok {
				es = append(es, entry{name, key, c})
			}
		}
		for _, m := range merges {
			sources := []*yaml.Node{m}
			if f := follow(m); f != nil && f.Kind == yaml.SequenceNode {
				sources = f.Content
			}
			for _, s := range sources {
				if f := follow(s); f != nil && f.Kind == yaml.MappingNode {
					walk(f)
				} else {
					value{d: v.d, node: s, path: v.path, hidden: v.hidden}.mustBe("a mapping to merge", "write <<: *ANCHOR")
				}
			}
		}
	}
	walk(v.node)
	return es
}

// scalar returns the text of a scalar as it is written, or ok false: a list, a
// mapping or nothing.
func (v value) scalar() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || isNull(v.node) {
		return "", false
	}
	return v.node.Value, true
}

// plain reports whether the scalar is written without quotes.
func (v value) plain() bool {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle | yaml.TaggedStyle
	return v.node.Style&quoted == 0
}

// list and mapping tell the kind of the node.
func (v value) list() bool    { return v.node.Kind == yaml.SequenceNode }
func (v value) mapping() bool { return v.node.Kind == yaml.MappingNode }
