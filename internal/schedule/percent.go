package schedule

import "strings"

// split cuts what is written in a job's line at the first % that has no
// backslash: the command before it, still escaped, and its input after it.
func split(written string) (command, input string, found bool) {
	for i := 0; i < len(written); i++ {
		switch written[i] {
		case '\\':
			i++
		case '%':
			return written[:i], written[i+1:], true
		}
	}
	return written, "", false
}

// decode is what cron makes of what is written: the command for the shell, and
// what it writes to the command's standard input.
func decode(written string) (command, input string) {
	command, input, _ = split(written)
	var b strings.Builder
	for i := 0; i < len(command); i++ {
		if command[i] == '\\' && i+1 < len(command) {
			if i++; command[i] != '%' && command[i] != '\\' {
				b.WriteByte('\\')
			}
		}
		b.WriteByte(command[i])
	}
	return b.String(), decodeInput(input)
}

// decodeInput makes newlines of the % without a backslash. Unlike in a command,
// a backslash escapes nothing but a %. What does not end in a newline gets one,
// but for a backslash at the very end.
func decodeInput(written string) string {
	var b strings.Builder
	newline, escaped := true, false // whether the last character was one
	for i := 0; i < len(written); i++ {
		c := written[i]
		switch {
		case escaped && c != '%':
			b.WriteByte('\\')
		case !escaped && c == '%':
			c = '\n'
		}
		if escaped = c == '\\'; !escaped {
			b.WriteByte(c)
			newline = c == '\n'
		}
	}
	if escaped {
		b.WriteByte('\\')
	}
	if !newline {
		b.WriteByte('\n')
	}
	return b.String()
}

// encode writes a command such that decode returns it.
func encode(command string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`).Replace(command)
}
