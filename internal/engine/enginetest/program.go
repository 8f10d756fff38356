package enginetest

import (
	"strconv"
	"time"

	"conductor/internal/engine"
)

// Words of the program in the test image (package app), as container commands.
// The image's entrypoint is the program, and its default is Forever.
var (
	// Forever runs until SIGTERM, and then ends with 0 at once.
	Forever = []string{"forever"}
	// Ignore runs until SIGKILL.
	Ignore = []string{"ignore"}
	// Hog takes memory until it is killed for it.
	Hog = []string{"hog"}
	// Show prints the process's environment, user, limits and mounts as JSON.
	Show = []string{"show"}
)

// Exit ends with a code at once.
func Exit(code int) []string { return []string{"exit", strconv.Itoa(code)} }

// Linger runs until SIGTERM and ends with 0 a while after it.
func Linger(d time.Duration) []string { return []string{"linger", d.String()} }

// Print prints one line to each output and ends with 0.
func Print(stdout, stderr string) []string { return []string{"print", stdout, stderr} }

// Count prints n numbered lines to stdout and ends with 0.
func Count(n int) []string { return []string{"count", strconv.Itoa(n)} }

// Cat prints a file.
func Cat(path string) []string { return []string{"cat", path} }

// Write tries to write a word into a file.
func Write(path, text string) []string { return []string{"write", path, text} }

// Echo copies standard input to standard output.
var Echo = []string{"echo"}

// AppBehaviour is the test program as Fake.Behave: what the image of
// BuildImage does on a real engine.
func AppBehaviour(c engine.Create) Behaviour {
	if e := c.Spec.Entrypoint; len(e) > 0 {
		return Behaviour{CannotRun: "exec: \"" + e[0] + "\": executable file not found in $PATH"}
	}
	args := c.Command
	if args == nil {
		args = c.Spec.Command
	}
	if len(args) == 0 {
		args = Forever
	}
	b := appDoes(args)
	if b.Exits {
		return b
	}
	b.Exec = func(command []string) (int, string, string) {
		if len(command) == 0 || command[0] != "/app" {
			return 126, "", "not found\n"
		}
		e := appDoes(command[1:])
		return e.Code, e.Stdout, e.Stderr
	}
	return b
}

func appDoes(args []string) Behaviour {
	switch args[0] {
	case "linger":
		d, _ := time.ParseDuration(args[1])
		return Behaviour{TermAfter: d, Stdout: "ready\n"}
	case "ignore":
		return Behaviour{IgnoresTerm: true, Stdout: "ready\n"}
	case "exit":
		code, _ := strconv.Atoi(args[1])
		return Behaviour{Exits: true, Code: code}
	case "print":
		return Behaviour{Exits: true, Stdout: args[1] + "\n", Stderr: args[2] + "\n"}
	case "count":
		n, _ := strconv.Atoi(args[1])
		b := Behaviour{Exits: true}
		for i := range n {
			b.Stdout += "line " + strconv.Itoa(i+1) + "\n"
		}
		return b
	case "hog":
		return Behaviour{Exits: true, OOM: true, Code: 137}
	default:
		return Behaviour{Stdout: "ready\n"}
	}
}
