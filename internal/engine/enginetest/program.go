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

// Talk prints n numbered lines to each output, in turn, and ends with a code.
func Talk(n, code int) []string { return []string{"talk", strconv.Itoa(n), strconv.Itoa(code)} }

// Mute says that it is ready, closes its outputs and runs until SIGTERM.
var Mute = []string{"mute"}

// FloodBlock is the size of a block of Flood, in bytes.
const FloodBlock = 64 << 10

// Flood prints n blocks to stdout, each of which begins with its number, in 15
// digits, and a line feed.
func Flood(n int) []string { return []string{"flood", strconv.Itoa(n), strconv.Itoa(FloodBlock)} }

// Terminal says which of its three files are terminals and what size that is,
// and again at each change of the size, until SIGTERM.
var Terminal = []string{"terminal"}

// Behaviour is what the process of a container does.
type Behaviour struct {
	// CannotRun, where it is not empty, is why the process cannot be started.
	CannotRun string
	// Exits: it ends by itself with Code, so long After it is started; OOM says
	// by whom.
	Exits bool
	After time.Duration
	OOM   bool
	Code  int
	// Echo: it prints its standard input, and ends with Code when that ends.
	Echo bool
	// IgnoresTerm: only SIGKILL ends it.
	IgnoresTerm bool
	// TermAfter is how long it takes to end once it is asked to.
	TermAfter time.Duration
	// TermCode is its exit code when it is asked to end.
	TermCode int
	// Stdout and Stderr are what it prints as it starts.
	Stdout, Stderr string
	// Exec answers commands run inside; nil: exit code 0 and no output.
	Exec func(command []string) (code int, stdout, stderr string)
}

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
	case "talk":
		n, _ := strconv.Atoi(args[1])
		code, _ := strconv.Atoi(args[2])
		b := Behaviour{Exits: true, Code: code}
		for i := range n {
			b.Stdout += "out " + strconv.Itoa(i+1) + "\n"
			b.Stderr += "err " + strconv.Itoa(i+1) + "\n"
		}
		return b
	case "echo":
		return Behaviour{Echo: true}
	case "hog":
		return Behaviour{Exits: true, OOM: true, Code: 137}
	default:
		return Behaviour{Stdout: "ready\n"}
	}
}
