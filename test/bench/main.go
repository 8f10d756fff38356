// Command bench measures Conductor against what cannot be done faster, and
// prints one table. script/bench builds what it needs and runs it.
//
// Every figure that is a ratio comes from two things that were measured in
// turns within one run, A/B/A/B, so that whatever else the machine does meets
// both. It makes an installation of its own, with its own namespace, network,
// nginx and loopback ports, and takes it away again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	conductor, floor, app string // binaries
	prober                string
	stripped              string // conductor without its symbols
	doc                   string // file whose table is rewritten; empty: none
	only                  string // parts, separated by commas; empty: all
	quick                 bool
	keepTrace             bool
}

// wants says whether a part is to be measured; one that has parts itself is
// also if one of these is.
func (o options) wants(part string) bool {
	return o.only == "" || slices.ContainsFunc(strings.Split(o.only, ","), func(p string) bool {
		return p == part || strings.HasPrefix(p, part+".") || strings.HasPrefix(part, p+".")
	})
}

func main() {
	var o options
	flag.StringVar(&o.conductor, "conductor", "", "the binary that is measured")
	flag.StringVar(&o.stripped, "stripped", "", "the same binary without symbols, for its size")
	flag.StringVar(&o.floor, "floor", "", "the floor program's binary")
	flag.StringVar(&o.prober, "prober", "", "the minimal prober's binary")
	flag.StringVar(&o.app, "app", "", "the test application's binary")
	flag.StringVar(&o.doc, "doc", "", "Markdown file whose table is rewritten")
	flag.StringVar(&o.only, "only", "", "measure only these: start,plan,engine,upgrade,run,proxy,supervise (or of it: supervise.deaths, .hangs, .row, .boot, .idle),fleet (.all, .handshake, .ship)")
	flag.BoolVar(&o.quick, "quick", false, "few repetitions: to see that it works")
	flag.BoolVar(&o.keepTrace, "trace", false, "print the events of the last upgrade, death and boot with their times")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.doc != "" && o.only != "" {
		return errors.New("-doc keeps a whole table: leave -only away")
	}
	var r report
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	for _, part := range []struct {
		name    string
		measure func(context.Context, *host, *report) error
	}{
		{"start", startUp},
		{"plan", planning},
		{"engine", engineFloors},
		{"upgrade", upgrades},
		{"run", oneOffs},
		{"proxy", throughput},
		{"supervise", supervision},
		{"fleet", deploys},
	} {
		if !o.wants(part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring: %s\n", part.name)
		// What was measured before and after counts nevertheless.
		if perr := part.measure(ctx, h, &r); perr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.name, perr))
		}
	}
	machine := h.machine(ctx)
	fmt.Print(machine + "\n\n" + r.text())
	if o.doc != "" && err == nil {
		return rewrite(o.doc, machine+"\n\n"+r.markdown())
	}
	return err
}
