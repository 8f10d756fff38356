// Command floor replaces the running containers of one service by those of
// another revision, and does nothing that could be left out: it is the time
// below which no upgrade of this kind can be.
//
// What it shares with an upgrade by Conductor: a process of its own; the same
// creates, starts, stops and removes, side by side; a probe until the first
// good answer; the same change of the same nginx, proved; the same files
// written and synced; a line in the history. What it leaves out is what makes
// an upgrade safe: looking at what is there, testing nginx's configuration
// before anything is started, locks, events, waiting for requests in flight.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/proxy/nginx"
	"conductor/internal/spec"
	"conductor/internal/state"
	"conductor/test/bench/container"
	"conductor/test/image"
)

const service = "floor"

type options struct {
	dir, config, namespace, socket string
	network, image, revision       string
	first                          netip.Addr
	listen                         netip.AddrPort
	replicas                       int
	test, reload                   []string
}

func main() {
	if err := run(context.Background(), parse()); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func parse() (o options) {
	flag.StringVar(&o.dir, "state", "", "state folder")
	flag.StringVar(&o.config, "config-dir", "", "where nginx's file is written")
	flag.StringVar(&o.namespace, "namespace", "", "prefix of names")
	flag.StringVar(&o.socket, "socket", "", "the engine's socket")
	flag.StringVar(&o.network, "network", "", "network of the containers")
	flag.StringVar(&o.image, "image", "", "image without its tag")
	flag.StringVar(&o.revision, "revision", "", "tag")
	flag.IntVar(&o.replicas, "replicas", 1, "how many")
	flag.TextVar(&o.first, "first", netip.Addr{}, "address of the first container; the others follow")
	flag.TextVar(&o.listen, "listen", netip.AddrPort{}, "where nginx listens")
	test := flag.String("test", "", "words of nginx -t, with commas")
	reload := flag.String("reload", "", "words of nginx -s reload, with commas")
	flag.Parse()
	o.test, o.reload = strings.Split(*test, ","), strings.Split(*reload, ",")
	return o
}

func run(ctx context.Context, o options) error {
	engine := image.NewEngine(o.socket)
	px := nginx.New(nginx.Config{ConfigDir: o.config, StateDir: o.dir, Namespace: o.namespace, Test: o.test, Reload: o.reload})
	dir, err := state.Open(o.dir)
	if err != nil {
		return err
	}
	history := state.OpenHistory(dir.HistoryPath(), nil)
	defer history.Close()
	op := state.Operation{Service: service, Verb: "upgrade", To: o.revision, Started: time.Now()}
	id := history.Begin(op)

	routes, err := dir.Routes()
	if err != nil {
		return err
	}
	old, _ := routes.Table.Route(service)
	imageID, err := container.ImageID(ctx, engine, o.image+":"+o.revision)
	if err != nil {
		return err
	}
	g := goal.Goal{Service: service, Running: true, Candidate: &goal.Candidate{
		Release: goal.Release{Revision: o.revision, Image: imageID}, Since: time.Now()}}
	if err := dir.PutGoal(g); err != nil {
		return err
	}

	targets := make([]proxy.Target, o.replicas)
	if err := sideBySide(o.replicas, func(n int) error {
		addr := o.first
		for range n {
			addr = addr.Next()
		}
		t := proxy.Target{
			Instance: fmt.Sprintf("%s.%s.%s.%d-%d", o.namespace, service, o.revision, time.Now().UnixMilli(), n),
			Addr:     netip.AddrPortFrom(addr, 8080), Weight: 1,
		}
		targets[n] = t
		c, err := container.Create(ctx, engine, container.Spec{Name: t.Instance, Image: imageID, Namespace: o.namespace,
			Env: []string{"SERVICE=" + service}, Network: o.network, Addr: t.Addr})
		if err != nil {
			return err
		}
		mark("created", t.Instance)
		if err := container.Start(ctx, engine, c); err != nil {
			return err
		}
		mark("started", t.Instance)
		if err := container.Answer(ctx, t.Addr); err != nil {
			return err
		}
		mark("healthy", t.Instance)
		return nil
	}); err != nil {
		return err
	}

	routes.Table = routes.Table.With(proxy.Route{Service: service, Targets: targets, HTTP: spec.HTTP{
		Path: "/", Listen: spec.Listen{Addr: o.listen.Addr(), Port: o.listen.Port()}}})
	if err := dir.PutRoutes(routes); err != nil {
		return err
	}
	if _, err := px.Apply(ctx, routes.Table); err != nil {
		return err
	}
	mark("routed", "")
	g.Commit()
	if err := dir.PutGoal(g); err != nil {
		return err
	}

	if err := sideBySide(len(old.Targets), func(n int) error {
		name := old.Targets[n].Instance
		if err := container.Stop(ctx, engine, name); err != nil {
			return err
		}
		mark("stopped", name)
		if err := container.Remove(ctx, engine, name); err != nil {
			return err
		}
		mark("removed", name)
		return nil
	}); err != nil {
		return err
	}
	op.Outcome, op.Ended = "done", time.Now()
	history.End(id, op)
	return nil
}

func sideBySide(n int, f func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

var out sync.Mutex

// mark prints a line in the form of Conductor's events.
func mark(event, instance string) {
	b, err := json.Marshal(map[string]string{"time": time.Now().Format(time.RFC3339Nano), "event": event, "instance": instance})
	if err != nil {
		panic("event " + strconv.Quote(event) + " is not JSON") // strings always are
	}
	out.Lock()
	defer out.Unlock()
	os.Stdout.Write(append(b, '\n'))
}
