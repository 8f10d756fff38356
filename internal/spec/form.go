package spec

import (
	"maps"
	"slices"
	"strings"
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

// kept is a field that keeps what could be read of a value with mistakes in it,
// so that what is said elsewhere of the rest is not wrong too.
func kept[T, V any](name, doc string, f form[V], place func(*T) *V) key[T] {
	k := field(name, doc, f, place)
	k.read = func(v value, into *T) { *place(into), _ = f.read(v) }
	return k
}

// members is a key whose value is a mapping with free keys, which valid checks.
// Each makes one element of a list, in the file's order, that begins as base
// makes it and is there even with mistakes in it; a wrong name is "" to base.
func members[T, U any](name, doc string, ks keys[U], valid func(k value, s string) bool, base func(name string) U,
	place func(*T) *[]U, required ...string) key[T] {
	return key[T]{
		name:   name,
		schema: schema{"type": "object", "additionalProperties": ks.schema(required...), "description": doc},
		read: func(v value, into *T) {
			if !v.mapping() {
				v.mustBe("a mapping", "write NAME: {KEY: VALUE} lines")
				return
			}
			for _, e := range v.entries() {
				v.d.at[e.val.path] = at(e.key.node)
				called := ""
				if valid(e.key, e.name) {
					called = e.name
				}
				u := base(called)
				ks.read(e.val, &u, required...)
				*place(into) = append(*place(into), u)
			}
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
