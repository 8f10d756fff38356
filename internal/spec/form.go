package spec

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// schema is a piece of a JSON Schema.
type schema map[string]any

// form is how a value may be written: it reads the value, reporting mistakes
// and returning false on them, and it says the same as a JSON Schema.
type form[T any] struct {
	read   func(v value) (T, bool)
	schema schema
}

// key is one key of a mapping that fills a T.
type key[T any] struct {
	name   string
	schema schema
	read   func(v value, into *T)
}

// keys is a mapping's table of keys. It is the one place that names them: the
// parser and the JSON Schema both come from it.
type keys[T any] []key[T]

// field is a key whose value goes to one place in T.
func field[T, V any](name, doc string, f form[V], place func(*T) *V) key[T] {
	return setting(name, doc, f, func(t *T, x V) { *place(t) = x })
}

// setting is a key whose value set puts into T.
func setting[T, V any](name, doc string, f form[V], set func(*T, V)) key[T] {
	return key[T]{
		name:   name,
		schema: with(f.schema, "description", doc),
		read: func(v value, into *T) {
			if x, ok := f.read(v); ok {
				set(into, x)
			}
		},
	}
}

// section is a key whose value is a mapping with a table of its own.
func section[T, U any](name, doc string, ks keys[U], place func(*T) *U, required ...string) key[T] {
	return key[T]{
		name:   name,
		schema: with(ks.schema(required...), "description", doc),
		read: func(v value, into *T) {
			ks.read(v, place(into), required...)
		},
	}
}

// read fills into from the mapping v, which must have the required keys.
func (ks keys[T]) read(v value, into *T, required ...string) bool {
	if !v.mapping() {
		v.mustBe("a mapping", "write KEY: VALUE lines")
		return false
	}
	before := len(v.d.problems)
	entries := v.entries()
	for _, r := range required {
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.name == r }) {
			where, named := v.d.at[v.path]
			if !named { // an element of a list, or the whole file
				where = at(v.node)
			}
			v.d.fail(where, "", "%s: is missing", v.join(r))
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.name, "x-") {
			continue
		}
		i := slices.IndexFunc(ks, func(k key[T]) bool { return k.name == e.name })
		if i < 0 {
			e.key.path = ""
			e.key.fail(ks.unknown(v, e.name), "unknown key %s", quote(e.val.path))
			continue
		}
		v.d.at[e.val.path] = at(e.key.node)
		ks[i].read(e.val, into)
	}
	return len(v.d.problems) == before
}

// unknown is the hint for a key that the table has not.
func (ks keys[T]) unknown(v value, name string) string {
	if h, ok := v.d.foreign[name]; ok && v.path == "" {
		return h
	}
	var here []string
	for _, k := range ks {
		here = append(here, k.name)
	}
	for _, p := range v.d.paths {
		if strings.HasSuffix(p, "."+name) || p == name {
			return "did you mean " + p + "?"
		}
	}
	return didYouMean(name, here)
}

// schema of a mapping with exactly these keys.
func (ks keys[T]) schema(required ...string) schema {
	properties := schema{}
	for _, k := range ks {
		properties[k.name] = k.schema
	}
	s := schema{
		"type": "object", "properties": properties, "additionalProperties": false,
		"patternProperties": schema{"^x-": true},
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// record is a mapping with a table, that makes a T from a base.
func record[T any](ks keys[T], base T, required ...string) form[T] {
	return form[T]{schema: ks.schema(required...), read: func(v value) (T, bool) {
		t := base
		ok := ks.read(v, &t, required...)
		return t, ok
	}}
}

func with(s schema, name string, v any) schema {
	s = maps.Clone(s)
	s[name] = v
	return s
}

// text is one line of text, written as a string.
func text() form[string] {
	return form[string]{schema: schema{"type": "string", "minLength": 1}, read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if ok && v.plain() && (v.node.Tag == "!!int" || v.node.Tag == "!!float" || v.node.Tag == "!!bool") {
			v.mustBe("text", "put quotes around it")
			return "", false
		}
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		return s, v.clean(s)
	}}
}

// scalar is one line of text, however YAML would read it: 010 and yes stay as
// they are written.
func scalar() form[string] {
	return form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		return s, v.clean(s)
	}}
}

func scalarSchema() schema { return schema{"type": []string{"string", "number", "boolean"}} }

// argument is a word of a command line: anything, lines too, but no NUL.
func argument() form[string] {
	return form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		if strings.ContainsRune(s, 0) {
			v.fail("", "must not have a NUL character in it")
			return "", false
		}
		return s, true
	}}
}

// clean refuses what must never reach a label, a path or a line of another
// program's configuration.
func (v value) clean(s string) bool {
	if s == "" {
		v.mustBe("text", "remove the key, or give it a value")
		return false
	}
	if r, ok := dirty(s); ok {
		v.fail("", "must not have the control character %U in it", r)
		return false
	}
	return true
}

// dirty finds a control character or line separator.
func dirty(s string) (rune, bool) {
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return r, true
		}
	}
	return 0, false
}

// matching narrows a form of text to a pattern, said in words.
func matching(f form[string], re *regexp.Regexp, want, hint string) form[string] {
	s := f.schema
	if s["type"] == "string" {
		s = schema{"type": "string", "pattern": re.String()}
	}
	return form[string]{schema: s, read: func(v value) (string, bool) {
		s, ok := f.read(v)
		if ok && !re.MatchString(s) {
			v.mustBe(want, hint)
			return "", false
		}
		return s, ok
	}}
}

// checked narrows a form by a function that reports what is wrong.
func checked[T, U any](f form[T], change func(v value, t T) (U, bool)) form[U] {
	return form[U]{schema: f.schema, read: func(v value) (u U, ok bool) {
		t, ok := f.read(v)
		if !ok {
			return u, false
		}
		return change(v, t)
	}}
}

// hidden is a form whose values may be secret: messages do not show them.
func hidden[T any](f form[T]) form[T] {
	return form[T]{schema: f.schema, read: func(v value) (T, bool) {
		v.hidden = true
		return f.read(v)
	}}
}

// oneOf is one of a few words.
func oneOf[T ~string](words ...T) form[T] {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	return form[T]{schema: schema{"enum": known}, read: func(v value) (T, bool) {
		s, ok := v.scalar()
		if !ok || !slices.Contains(known, s) {
			v.mustBe(alternatives(known), didYouMean(s, known))
			return "", false
		}
		return T(s), true
	}}
}

// alternatives lists words: a, b or c.
func alternatives(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// boolean is true or false, and not one of YAML 1.1's many other words.
func boolean() form[bool] {
	return form[bool]{schema: schema{"type": "boolean"}, read: func(v value) (bool, bool) {
		s, ok := v.scalar()
		if !ok || !v.plain() || s != "true" && s != "false" {
			v.mustBe("true or false", "")
			return false, false
		}
		return s == "true", true
	}}
}

var digits = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// integer is a number in decimal digits, within bounds.
func integer[T ~int | ~int64 | ~uint16](low, high int64) form[T] {
	return form[T]{schema: schema{"type": "integer", "minimum": low, "maximum": high}, read: func(v value) (T, bool) {
		s, ok := v.scalar()
		if ok && !v.plain() && digits.MatchString(s) {
			v.mustBe("a number", "remove the quotes")
			return 0, false
		}
		n, ok := parseInteger(s, low, high)
		if !ok {
			hint := ""
			if v.node.Tag == "!!int" && !digits.MatchString(s) {
				hint = "write decimal digits alone"
			}
			v.mustBe("a number "+between(low, high), hint)
			return 0, false
		}
		return T(n), true
	}}
}

func parseInteger(s string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && digits.MatchString(s) && n >= low && n <= high
}

func between(low, high int64) string {
	if high > 1<<40 {
		return "of at least " + strconv.FormatInt(low, 10)
	}
	return "from " + strconv.FormatInt(low, 10) + " to " + strconv.FormatInt(high, 10)
}

// span is a time within bounds, written as Compose does: 1m30s, 500ms.
func span(low, high time.Duration) form[Duration] {
	pattern := `^([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+$`
	re := regexp.MustCompile(pattern)
	return form[Duration]{schema: schema{"type": "string", "pattern": pattern}, read: func(v value) (Duration, bool) {
		s, ok := v.scalar()
		t, err := time.ParseDuration(s)
		switch {
		case ok && digits.MatchString(s):
			v.mustBe("a time with its unit", "write "+s+"s for seconds")
			return 0, false
		case !ok || err != nil || !re.MatchString(s):
			v.mustBe("a time such as 500ms, 10s or 1m30s", "")
			return 0, false
		case t < low || t > high:
			v.mustBe("a time from "+short(low)+" to "+short(high), "")
			return 0, false
		}
		return Duration(t), true
	}}
}

// short writes a time without the zeros that Go adds: 24h, not 24h0m0s.
func short(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeGrammar = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([bkmgtBKMGT]?)[bB]?$`)

// size is a number of bytes with a unit of 1024s, as Compose has it: 512m, 1gb.
func size(low int64) form[int64] {
	s := schema{"anyOf": []schema{
		{"type": "integer", "minimum": low},
		{"type": "string", "pattern": sizeGrammar.String()},
	}}
	return form[int64]{schema: s, read: func(v value) (int64, bool) {
		s, ok := v.scalar()
		n, valid := parseSize(s)
		switch {
		case !ok || !valid:
			v.mustBe("a size such as 512m or 1g", "units are b, k, m, g and kb, mb, gb")
			return 0, false
		case n < low:
			v.mustBe("at least "+sizeText(low), "units are b, k, m, g and kb, mb, gb")
			return 0, false
		}
		return n, true
	}}
}

// sizeText writes a size with the largest unit that leaves no rest.
func sizeText(n int64) string {
	unit := ""
	for _, u := range []string{"k", "m", "g"} {
		if n < 1024 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

func parseSize(s string) (int64, bool) {
	m := sizeGrammar.FindStringSubmatch(s)
	if m == nil || len(m[1]) > 1 && m[1][0] == '0' && m[1][1] != '.' {
		return 0, false
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, false
	}
	for _, unit := range "kmgt" {
		if m[2] == "" || strings.EqualFold(m[2], "b") {
			break
		}
		f *= 1024
		if strings.EqualFold(m[2], string(unit)) {
			break
		}
	}
	if f > 1<<62 {
		return 0, false
	}
	return int64(f), true
}

// listOf is a list of values. An empty one is nil.
func listOf[T any](item form[T]) form[[]T] {
	return form[[]T]{schema: schema{"type": "array", "items": item.schema}, read: func(v value) ([]T, bool) {
		if !v.list() {
			v.mustBe("a list", "write [VALUE, …], or a - before each")
			return nil, false
		}
		var ts []T
		before := len(v.d.problems)
		for _, c := range v.items() {
			if t, ok := item.read(c); ok {
				ts = append(ts, t)
			}
		}
		return ts, len(v.d.problems) == before
	}}
}

// oneOrMore is a value, or a list of them.
func oneOrMore[T any](item form[T]) form[[]T] { return oneOrList(item, listOf(item)) }

// oneOrList is a value in its short form, or a list.
func oneOrList[T any](one form[T], many form[[]T]) form[[]T] {
	return form[[]T]{schema: schema{"anyOf": []schema{one.schema, many.schema}}, read: func(v value) ([]T, bool) {
		switch {
		case v.list():
			return many.read(v)
		case v.mapping():
			v.mustBe("text or a list", "")
			return nil, false
		}
		t, ok := one.read(v)
		return []T{t}, ok
	}}
}

// either is a form for scalars and another one for lists or mappings.
func either[T any](simple, other form[T]) form[T] {
	return form[T]{schema: schema{"anyOf": []schema{simple.schema, other.schema}}, read: func(v value) (T, bool) {
		if v.mapping() || v.list() {
			return other.read(v)
		}
		return simple.read(v)
	}}
}

// mapOf is a mapping with free keys, which name checks. An empty one is nil.
// Keys are recorded as positions under the mapping's path.
func mapOf[T any](name func(k value, s string) bool, item form[T]) form[map[string]T] {
	return form[map[string]T]{schema: schema{"type": "object", "additionalProperties": item.schema}, read: func(v value) (map[string]T, bool) {
		if !v.mapping() {
			v.mustBe("a mapping", "write KEY: VALUE lines")
			return nil, false
		}
		var m map[string]T
		before := len(v.d.problems)
		for _, e := range v.entries() {
			good := name(e.key, e.name)
			v.d.at[e.val.path] = at(e.key.node)
			if t, ok := item.read(e.val); ok && good {
				if m == nil {
					m = map[string]T{}
				}
				m[e.name] = t
			}
		}
		return m, len(v.d.problems) == before
	}}
}

// pairs is a mapping, or a list of KEY=VALUE as Compose has it. bare gives the
// value of a list's KEY without one.
func pairs(name func(k value, s string) bool, item form[string], bare func(v value, name string) (string, bool)) form[map[string]string] {
	m := mapOf(name, item)
	s := schema{"anyOf": []schema{m.schema, {"type": "array", "items": schema{"type": "string"}}}}
	return form[map[string]string]{schema: s, read: func(v value) (map[string]string, bool) {
		if !v.list() {
			return m.read(v)
		}
		var out map[string]string
		before := len(v.d.problems)
		for _, c := range v.items() {
			line, ok := c.scalar()
			if !ok {
				c.mustBe("KEY=VALUE", "")
				continue
			}
			k, val, found := strings.Cut(line, "=")
			if !found && v.hidden && !envNameGrammar.MatchString(k) {
				c.mustBe("KEY=VALUE", "") // k may have the value in it
				continue
			}
			if !name(c, k) {
				continue
			}
			v.d.at[v.path+"."+k] = at(c.node)
			if found {
				// The value is read by its form, at the place of the item.
				node := *c.node
				node.Value, node.Tag = val, "!!str"
				val, ok = item.read(value{d: v.d, node: &node, path: c.path, hidden: c.hidden})
			} else {
				val, ok = bare(c, k)
			}
			if !ok {
				continue
			}
			if _, twice := out[k]; twice {
				c.fail("", "%s is written twice", quote(k))
				continue
			}
			if out == nil {
				out = map[string]string{}
			}
			out[k] = val
		}
		return out, len(v.d.problems) == before
	}}
}
