// Command app is the web application that the end-to-end tests deploy. It can
// be made to behave as badly as real ones do, by its environment:
//
//	PORT=8080           where it listens
//	LISTEN=0.0.0.0      or 127.0.0.1, or none: it runs and never listens
//	REVISION=v1         told in each answer's header X-Revision and body
//	SERVICE=shop        told in each answer's header X-Service
//	START_DELAY=20s     time before it listens
//	HEALTH_DELAY=2s     time after that until /health is good
//	EXIT_AT_START=3     ends with this code instead of listening
//	HOG=256m            takes this much memory before it listens
//	STATUS=500          status of every answer at / and /health
//	REDIRECT=https://…  / and /health redirect there
//	ON_TERM=graceful    finishes requests, then ends; exit: ends at once; ignore
//	GRACE=2s            graceful: time before it begins to end
//
// and by its paths, each of which answers under any prefix too, so that a
// service can have a path of its own: /health /echo /slow /events /ws
// /headers /hog /exit /sick /well.
//
// Its first argument makes it something else: check (asks its own /health),
// fail (exits 1), migrate (exits $MIGRATE_EXIT), sleep.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] != "serve" {
		os.Exit(command(os.Args[1:]))
	}
	os.Exit(serve())
}

// command is what the application does instead of serving.
func command(args []string) int {
	switch args[0] {
	case "check":
		c := http.Client{Timeout: time.Second}
		resp, err := c.Get("http://127.0.0.1:" + env("PORT", "8080") + "/health")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
		if resp.StatusCode > 299 {
			return 1
		}
		return 0
	case "fail":
		fmt.Fprintln(os.Stderr, "app: told to fail")
		return 1
	case "migrate":
		fmt.Println("migrating to", env("REVISION", "dev"))
		code, _ := strconv.Atoi(env("MIGRATE_EXIT", "0"))
		return code
	case "sleep":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, os.Interrupt)
		<-c
		return 0
	}
	fmt.Fprintf(os.Stderr, "app: unknown command %q\n", args[0])
	return 2
}

func serve() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, os.Interrupt)
	fmt.Printf("app: %s %s starts\n", env("SERVICE", "app"), env("REVISION", "dev"))
	if code := os.Getenv("EXIT_AT_START"); code != "" {
		fmt.Fprintln(os.Stderr, "app: cannot reach the database at db.internal:5432")
		n, _ := strconv.Atoi(code)
		return n
	}
	hog(bytesOf(os.Getenv("HOG")))
	if !wait(duration("START_DELAY"), term) {
		return 0
	}
	a := newApp()
	s := &http.Server{Handler: a, ErrorLog: nil}
	served := make(chan error, 1)
	if at := env("LISTEN", "0.0.0.0"); at != "none" {
		l, err := net.Listen("tcp", net.JoinHostPort(at, env("PORT", "8080")))
		if err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			return 1
		}
		fmt.Println("app: listens on", l.Addr())
		go func() { served <- s.Serve(l) }()
	}
	for {
		select {
		case err := <-served:
			fmt.Fprintln(os.Stderr, "app:", err)
			return 1
		case <-term:
		}
		switch env("ON_TERM", "graceful") {
		case "ignore":
			fmt.Println("app: ignores the signal")
			continue
		case "exit":
			return 0
		}
		fmt.Println("app: finishes its requests")
		time.Sleep(duration("GRACE"))
		close(a.ending)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "app: shutdown:", err)
			return 1
		}
		a.streams.Wait()
		return 0
	}
}

func env(key, otherwise string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return otherwise
}

func duration(key string) time.Duration {
	d, err := time.ParseDuration(env(key, "0s"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "app: %s: %v\n", key, err)
		os.Exit(2)
	}
	return d
}

// bytesOf reads 64m and the like; 0 for nothing.
func bytesOf(s string) int {
	s, mega := strings.CutSuffix(s, "m")
	n, _ := strconv.Atoi(s)
	if mega {
		n <<= 20
	}
	return n
}

// wait returns false if the application was told to end meanwhile.
func wait(d time.Duration, term <-chan os.Signal) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-term:
			if env("ON_TERM", "graceful") != "ignore" {
				return false
			}
		}
	}
}

// hogged keeps the memory that hog took.
var hogged [][]byte

// hog takes n bytes of memory and touches each page, a megabyte at a time.
func hog(n int) {
	const step = 1 << 20
	for ; n > 0; n -= step {
		b := make([]byte, step)
		for i := 0; i < step; i += 4096 {
			b[i] = 1
		}
		hogged = append(hogged, b)
	}
}

// readAll reads the body before an answer is begun: the HTTP/1.1 of net/http
// is half duplex.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	b, err := io.ReadAll(r.Body)
	if err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, false
	}
	return b, true
}
