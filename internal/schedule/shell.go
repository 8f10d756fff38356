package schedule

import (
	"regexp"
	"strings"
)

const (
	// safe are the characters, beside letters and digits, that mean nothing to
	// any shell wherever they stand in a word that is not the first.
	safe = "_./:=@,+-%"
	// DefaultShell runs a job's command unless the crontab sets SHELL.
	DefaultShell = "/bin/sh"
)

// Quote writes a word such that a shell reads it as that word, and as no more.
func Quote(word string) string {
	if word != "" && safePrefix(word) == len(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Wrap returns the words, quoted, that have the shell run the command.
func Wrap(command, shell string) string {
	return Quote(shell) + " -c " + Quote(command)
}

// quotes in which nothing has a meaning.
var plainQuotes = regexp.MustCompile("^('[^']*'|\"[^\"$`\\\\]*\")")

// Plain tells whether a command is a program with its arguments and no more:
// then a shell, whichever, only divides it into words, and the words can be run
// without one. When in doubt it says no.
func Plain(command string) bool {
	_, plain := divided(command)
	return plain
}

// divided is a plain command in words.
func divided(command string) (words []string, plain bool) {
	for command = strings.Trim(command, blanks); command != ""; command = strings.TrimLeft(command, blanks) {
		var word string
		for command != "" && !strings.ContainsAny(command[:1], blanks) {
			if n := safePrefix(command); n > 0 {
				word, command = word+command[:n], command[n:]
			} else if q := plainQuotes.FindString(command); q != "" {
				word, command = word+q[1:len(q)-1], command[len(q):]
			} else {
				return nil, false
			}
		}
		if len(words) == 0 && !isProgram(word) {
			return nil, false
		}
		words = append(words, word)
	}
	return words, len(words) > 0
}

// safePrefix counts the bytes that text begins with and that need no quotes.
func safePrefix(text string) int {
	for i := range len(text) {
		if !isAlphanumeric(text[i]) && strings.IndexByte(safe, text[i]) < 0 {
			return i
		}
	}
	return len(text)
}

// isProgram tells whether a command's first word can be the name of a program,
// and is neither an assignment, a flag, nor a word that only shells know.
func isProgram(word string) bool {
	return word != "" && word[0] != '-' && !strings.Contains(word, "=") && !shellWords[word]
}

var shellWords = func() map[string]bool {
	words := make(map[string]bool)
	for _, w := range strings.Fields(`
		! { } [[ ]] case coproc do done elif else esac fi for function if in select then time until while
		. : alias bg bind break builtin caller cd chdir command compgen complete compopt continue declare dirs
		disown enable eval exec exit export fc fg getopts hash help history jobs let local logout mapfile popd
		print pushd read readarray readonly return set setvar shift shopt source suspend times trap type typeset
		ulimit umask unalias unset wait whence`) {
		words[w] = true
	}
	return words
}()
