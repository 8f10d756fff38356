// Command load puts load on one address and prints what became of it. It ends
// with its duration, or at an interrupt, and exits 1 if a request failed.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"conductor/test/load"
)

func main() {
	var cfg load.Config
	flag.StringVar(&cfg.Addr, "addr", "", "host:port to dial")
	flag.StringVar(&cfg.Host, "host", "", "Host header (default: the address)")
	flag.StringVar(&cfg.Path, "path", "/", "path")
	flag.Float64Var(&cfg.Rate, "rate", 0, "requests due each second; 0: as many as the server takes")
	flag.IntVar(&cfg.Connections, "c", 32, "connections")
	flag.BoolVar(&cfg.NewConnections, "new", false, "a new connection for each request")
	flag.DurationVar(&cfg.Duration, "d", 10*time.Second, "how long")
	post := flag.Int("post", 0, "POST this many bytes")
	flag.BoolVar(&cfg.Echo, "echo", false, "the answer must be the request's body")
	revision := flag.String("revision", "", "regular expression whose first group finds the revision in the body (default: the header X-Revision)")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if *post > 0 {
		cfg.Method, cfg.Body = "POST", bytes.Repeat([]byte("x"), *post)
	}
	if *revision != "" {
		re, err := regexp.Compile(*revision)
		if err != nil {
			fmt.Fprintln(os.Stderr, "load: -revision:", err)
			os.Exit(2)
		}
		cfg.RevisionBody = re
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := load.Run(ctx, cfg)
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(r)
	} else {
		fmt.Print(r)
	}
	if r.Failed > 0 {
		os.Exit(1)
	}
}
