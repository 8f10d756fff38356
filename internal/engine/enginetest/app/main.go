// Command app is the program inside the test image: it does on request what
// services do to those who run them. It is built without cgo, so that it runs
// FROM scratch.
//
// The first argument says what to do; package enginetest has the words.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"forever"}
	}
	os.Exit(run(args[0], args[1:]))
}

func run(what string, args []string) int {
	switch what {
	case "forever": // until SIGTERM, then at once
		wait(0)
	case "linger": // until SIGTERM, then for that long
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return fail(err)
		}
		wait(d)
	case "ignore": // SIGTERM does nothing
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "exit": // with that code, at once
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return fail(err)
		}
		return code
	case "print": // first word to stdout, second to stderr
		fmt.Println(args[0])
		fmt.Fprintln(os.Stderr, args[1])
	case "count": // so many lines to stdout
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return fail(err)
		}
		for i := range n {
			fmt.Println("line", i+1)
		}
	case "hog": // takes memory until it is killed
		// containerd begins to watch for it when the process has started, and
		// misses what happens in the first milliseconds.
		time.Sleep(300 * time.Millisecond)
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			if len(all) > 1<<14 {
				return fail(fmt.Errorf("nothing stopped it"))
			}
		}
	case "show": // the process as it finds itself, as JSON
		return show()
	case "cat": // a file to stdout
		b, err := os.ReadFile(args[0])
		if err != nil {
			return fail(err)
		}
		_, _ = os.Stdout.Write(b)
	case "write": // a word into a file
		if err := os.WriteFile(args[0], []byte(args[1]), 0o600); err != nil {
			return fail(err)
		}
	case "echo": // stdin to stdout
		if _, err := os.Stdout.ReadFrom(os.Stdin); err != nil {
			return fail(err)
		}
	case "talk": // so many lines to each output, in turn, and that code
		n, err1 := strconv.Atoi(args[0])
		code, err2 := strconv.Atoi(args[1])
		if err := errors.Join(err1, err2); err != nil {
			return fail(err)
		}
		for i := range n {
			fmt.Println("out", i+1)
			fmt.Fprintln(os.Stderr, "err", i+1)
		}
		return code
	case "mute": // closes its outputs and runs until SIGTERM
		wait(0, os.Stdout, os.Stderr)
	case "flood": // so many blocks of that size to stdout, numbered
		n, err1 := strconv.Atoi(args[0])
		size, err2 := strconv.Atoi(args[1])
		if err := errors.Join(err1, err2); err != nil {
			return fail(err)
		}
		block := bytes.Repeat([]byte(strings.Repeat("x", 1023)+"\n"), size/1024)
		for i := range n {
			copy(block, fmt.Sprintf("%015d\n", i))
			if _, err := os.Stdout.Write(block); err != nil {
				return fail(err)
			}
		}
	case "terminal": // what its terminal is, and each change, until SIGTERM
		terminal()
	default:
		return fail(fmt.Errorf("unknown request %q", what))
	}
	return 0
}

// wait returns so long after SIGTERM. The word on stdout says that it listens
// for the signal; files are closed after it.
func wait(linger time.Duration, files ...*os.File) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	for _, f := range files {
		_ = f.Close()
	}
	<-c
	time.Sleep(linger)
}

func terminal() {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGWINCH)
	for {
		for fd := range 3 {
			_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
			fmt.Printf("%d=%t ", fd, err == nil)
		}
		if size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ); err == nil {
			fmt.Printf("%dx%d", size.Col, size.Row)
		}
		fmt.Println()
		if s := <-c; s == syscall.SIGTERM {
			return
		}
	}
}

func show() int {
	host, _ := os.Hostname()
	dir, _ := os.Getwd()
	var files syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	hosts, _ := os.ReadFile("/etc/hosts")
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	status, _ := os.ReadFile("/proc/self/status")
	mounts, _ := os.ReadFile("/proc/self/mounts")
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"args": os.Args, "env": os.Environ(), "uid": os.Getuid(), "gid": os.Getgid(),
		"hostname": host, "dir": dir, "pid": os.Getpid(), "files": files.Max,
		"hosts": string(hosts), "resolv": string(resolv), "status": string(status), "mounts": string(mounts),
	})
	if err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
