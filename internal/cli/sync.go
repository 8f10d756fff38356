package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/remote"
	"conductor/internal/spec"
)

// synced is a host in the JSON of sync.
type synced struct {
	Host     string   `json:"host"`
	Services []string `json:"services"` // whose definitions differ
	Error    string   `json:"error,omitempty"`

	texts map[string]string // what they shall be
	were  map[string]string // what they are
	err   error
}

func (a *app) syncCmd() *cobra.Command {
	var words []string
	var plan bool
	cmd := &cobra.Command{
		Use:   "sync [--hosts HOSTS]",
		Short: "Send the definitions of services to the hosts of the fleet",
		Long: `Shows how the definitions here, in the folder that fleet.yml names, differ from
those of the hosts, and makes them the hosts'. Each host gets those of the
services that fleet.yml puts on it; others that it has are left alone, as are
hosts with sync: false. Nothing is applied by that: the next upgrade or deploy
goes by the new definition.`,
		Example: "conductor sync --plan",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, f, err := a.openFleet(a.display().Event, "", "")
			defer p.close()
			if err != nil {
				return err
			}
			hosts, err := chosen(f, "", words)
			if err != nil {
				return err
			}
			all, err := a.compare(cmd.Context(), p, f, hosts)
			if err != nil {
				return err
			}
			return a.bringInStep(cmd.Context(), p, all, plan)
		},
	}
	a.hostsFlag(cmd, &words)
	planFlag(cmd, &plan)
	return cmd
}

// digestOf is by what definitions are compared.
func digestOf(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

// definitionHere is the digest of a service's definition in the folder that
// fleet.yml names; "" where there is none.
func definitionHere(f spec.Fleet, id string) (string, error) {
	if f.Definitions == "" {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(f.Definitions, id+".yml"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fault.New(fault.ErrHost, "", "read the definition of %s: %w", id, err)
	}
	return digestOf(text), nil
}

// compare asks the hosts for their definitions, and finds what differs.
func (a *app) compare(ctx context.Context, p *FleetParts, f spec.Fleet, hosts []string) ([]*synced, error) {
	if f.Definitions == "" {
		return nil, usageError("definitions: services", "%s does not say which folder has the definitions", f.File)
	}
	mine := map[string]string{}
	for _, s := range f.Services {
		text, err := os.ReadFile(filepath.Join(f.Definitions, s.ID+".yml"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fault.New(fault.ErrDefinition, "write it, or take the service out of "+f.File, "there is no definition of %s in %s", s.ID, f.Definitions)
		case err != nil:
			return nil, fault.New(fault.ErrHost, "", "read the definition of %s: %w", s.ID, err)
		}
		mine[s.ID] = string(text)
	}
	set, err := spec.LoadServices(os.DirFS(f.Definitions), f.Definitions)
	if err != nil {
		return nil, err
	}
	for id := range mine {
		if _, err := set.Get(id); err != nil {
			return nil, err
		}
	}
	var all []*synced
	for _, name := range hosts {
		h, _ := f.Host(name)
		if !h.Sync {
			continue
		}
		s := &synced{Host: name, Services: []string{}, texts: map[string]string{}}
		for id, text := range mine {
			if slices.ContainsFunc(f.HostsOf(id), func(h spec.FleetHost) bool { return h.Name == name }) {
				s.texts[id] = text
			}
		}
		all = append(all, s)
	}
	var asking sync.WaitGroup
	for _, s := range all {
		asking.Go(func() {
			if s.err = remote.Ask(ctx, p.Transport, p.At[s.Host], a.fleetRequest(remote.Definitions), &s.were); s.err != nil {
				s.Error = s.err.Error()
				return
			}
			for _, id := range slices.Sorted(maps.Keys(s.texts)) {
				if s.were[id] == s.texts[id] {
					delete(s.texts, id)
					continue
				}
				s.Services = append(s.Services, id)
			}
		})
	}
	asking.Wait()
	return all, nil
}

// bringInStep shows what differs, and sends it.
func (a *app) bringInStep(ctx context.Context, p *FleetParts, all []*synced, plan bool) error {
	a.sayDifferences(all)
	if !plan {
		var sending sync.WaitGroup
		for _, s := range all {
			if s.err != nil || len(s.texts) == 0 {
				continue
			}
			sending.Go(func() { a.send(ctx, p, s) })
		}
		sending.Wait()
	}
	var errs []error
	for _, s := range all {
		switch {
		case s.err != nil:
			errs = append(errs, s.err)
		case len(s.Services) == 0:
			a.say(s.Host + ": in step")
		case plan:
			a.say(s.Host + ": " + plural(len(s.Services), "definition") + " to be sent")
		default:
			a.say(s.Host + ": " + plural(len(s.Services), "definition") + " sent")
		}
	}
	if a.json() {
		if err := a.document(all); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// sayDifferences shows each difference once, with the hosts that have it.
func (a *app) sayDifferences(all []*synced) {
	type difference struct{ id, was string }
	hosts := map[difference][]string{}
	var order []difference
	texts := map[string]string{}
	for _, s := range all {
		for _, id := range s.Services {
			d := difference{id, s.were[id]}
			if hosts[d] == nil {
				order = append(order, d)
			}
			hosts[d], texts[id] = append(hosts[d], s.Host), s.texts[id]
		}
	}
	for _, d := range order {
		file := d.id + ".yml"
		a.say(display.Clean(string(diff.Diff(strings.Join(hosts[d], ", ")+": "+file, []byte(d.was), "here: "+file, []byte(texts[d.id])))))
	}
}

// send makes the host's definitions what they shall be.
func (a *app) send(ctx context.Context, p *FleetParts, s *synced) {
	text, err := json.Marshal(s.texts)
	if err == nil {
		err = p.Transport.Do(ctx, p.At[s.Host], a.fleetRequest(remote.WriteDefinitions), remote.Streams{Stdin: bytes.NewReader(text)})
	}
	if s.err = err; err != nil {
		s.Error = err.Error()
	}
}
