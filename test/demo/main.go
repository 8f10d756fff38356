// Command demo is the part of script/demo that judges: it deploys a service,
// upgrades it, offers it a bad release and rolls it back, each under load, and
// fails unless every request was answered and every phase came out as it
// should. script/demo prepares the machine for it and alone runs it.
//
//	demo images      makes the images
//	demo play        the phases, in their order
//	demo down        removes what the engine has of the namespace
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"conductor/test/image"
)

func init() {
	// A child that shall die with us (Pdeathsig) dies with the thread that
	// started it.
	runtime.LockOSThread()
}

func main() {
	var d demo
	flag.StringVar(&d.dir, "dir", "", "folder of the installation: conductor.yml, services/, bin/")
	flag.StringVar(&d.namespace, "namespace", "", "namespace of the installation")
	flag.StringVar(&d.addr, "addr", "", "address at which the proxy serves the service")
	flag.StringVar(&d.old, "old", "", "the release that is deployed first")
	flag.StringVar(&d.new, "new", "", "the release that it is upgraded to")
	flag.BoolVar(&d.color, "color", false, "paint")
	flag.BoolVar(&d.keep, "keep", false, "leave the service running")
	socket := flag.String("socket", "/var/run/docker.sock", "socket of the engine")
	flag.Parse()
	d.engine = image.NewEngine(*socket)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch flag.Arg(0) {
	case "images":
		err = d.images(ctx)
	case "play":
		err = d.play(ctx)
	case "down":
		err = d.down(context.Background()) // is what an interrupt leads to
	default:
		err = errors.New("demo: images, play or down? script/demo knows")
	}
	if ctx.Err() != nil && flag.Arg(0) != "down" {
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, d.red(err.Error()))
		os.Exit(1)
	}
}
