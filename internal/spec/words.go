package spec

import "strings"

// command is a list of words, or a string that is split into words the way a
// shell would; no shell ever sees it.
func command() form[[]string] { return commandForm(false) }

// entrypoint is a command that may also be empty, which removes the image's.
func entrypoint() form[[]string] { return commandForm(true) }

func commandForm(mayBeEmpty bool) form[[]string] {
	many := listOf(argument())
	least := 1
	if mayBeEmpty {
		least = 0
	}
	return form[[]string]{
		schema: schema{"anyOf": []schema{
			{"type": "string", "minLength": least},
			with(many.schema, "minItems", least),
		}},
		read: func(v value) ([]string, bool) {
			var words []string
			switch {
			case v.list():
				var ok bool
				if words, ok = many.read(v); !ok {
					return nil, false
				}
			case v.mapping():
				v.mustBe("text or a list", "")
				return nil, false
			default:
				s, ok := argument().read(v)
				if !ok {
					return nil, false
				}
				var bad, hint string
				if words, bad, hint = splitWords(s); bad != "" {
					v.fail(hint, "%s", bad)
					return nil, false
				}
			}
			switch {
			case len(words) == 0 && mayBeEmpty:
				// What the engine takes for "no entrypoint"; nil is the image's.
				return []string{""}, true
			case len(words) == 0:
				v.fail("remove the key to use the default", "has no words")
				return nil, false
			case words[0] == "" && !mayBeEmpty:
				v.fail("", "the first word is empty")
				return nil, false
			}
			return words, true
		},
	}
}

// splitWords splits a command line as a POSIX shell does: blanks apart, ' and
// " quotes, \ escapes. $ and ` are ordinary characters. What only a shell can
// do is refused (bad and hint say what and why), since dropping it in silence
// would run something else.
func splitWords(s string) (words []string, bad, hint string) {
	var word strings.Builder
	in := false // a word has begun, possibly an empty quoted one
	rs := []rune(s)
	for i := 0; i < len(rs); i++ {
		switch r := rs[i]; r {
		case ' ', '\t', '\n', '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		case '\'':
			in = true
			for i++; i < len(rs) && rs[i] != '\''; i++ {
				word.WriteRune(rs[i])
			}
			if i >= len(rs) {
				return nil, "a ' is not closed", "quote it, or write a list: [WORD, …]"
			}
		case '"':
			in = true
			for i++; i < len(rs) && rs[i] != '"'; i++ {
				if rs[i] == '\\' && i+1 < len(rs) && strings.ContainsRune("\"\\$`\n", rs[i+1]) {
					if i++; rs[i] == '\n' {
						continue
					}
				}
				word.WriteRune(rs[i])
			}
			if i >= len(rs) {
				return nil, "a \" is not closed", "quote it, or write a list: [WORD, …]"
			}
		case '\\':
			if i++; i >= len(rs) {
				return nil, "ends in a \\", "write a list: [WORD, …]"
			}
			if rs[i] != '\n' {
				word.WriteRune(rs[i])
				in = true
			}
		case ';', '&', '|', '<', '>':
			return nil, "has the shell operator " + string(r) + ", and no shell runs it",
				"quote it, or write [sh, -c, \"…\"]"
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, "", ""
}
