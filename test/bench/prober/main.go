// Command prober asks every address for /health at an interval, over a new
// connection each time, and does nothing else: the processor time below which
// nobody who looks after so many containers can be.
//
//	prober -every 5s 10.211.0.10:8080 …
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	every := flag.Duration("every", 5*time.Second, "time between two probes of an address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client := &http.Client{Timeout: *every, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	var good, bad atomic.Int64
	var probing sync.WaitGroup
	for n, addr := range flag.Args() {
		probing.Go(func() {
			// Not all at the same instant.
			first := time.NewTimer(*every * time.Duration(n) / time.Duration(flag.NArg()))
			select {
			case <-first.C:
			case <-ctx.Done():
				return
			}
			for tick := time.NewTicker(*every); ; {
				if err := probe(ctx, client, addr); err != nil {
					bad.Add(1)
				} else {
					good.Add(1)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	probing.Wait()
	fmt.Println(good.Load(), bad.Load())
}

func probe(ctx context.Context, client *http.Client, addr string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /health: %s", resp.Status)
	}
	return nil
}
