package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"conductor/test/image"
)

// badPort is where the bad release listens, while the definition says 8080.
const badPort = "9000"

// bad is the release that nobody should ever get an answer from: the new one,
// its image changed to listen elsewhere.
func (d *demo) bad() string { return d.new + "-moved" }

// repo is the image that the service's definition names.
func (d *demo) repo() string { return d.namespace + "-images/go-httpbin" }

// images makes an image of each release, from scratch around its binary.
func (d *demo) images(ctx context.Context) error {
	labels := map[string]string{"conductor.demo": d.namespace}
	for revision, i := range map[string]image.Image{
		d.old:   {Binary: d.binary(d.old)},
		d.new:   {Binary: d.binary(d.new)},
		d.bad(): {Binary: d.binary(d.new), Env: map[string]string{"PORT": badPort}},
	} {
		i.Labels = labels
		if err := d.engine.Import(ctx, d.repo()+":"+revision, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) binary(release string) string {
	return filepath.Join(d.dir, "bin", release, "go-httpbin")
}

// container is what the phases compare: the same container, not only another
// one like it.
type container struct{ id, revision string }

// running lists the containers that run in the namespace, ordered.
func (d *demo) running(ctx context.Context) ([]container, error) {
	all, err := d.engine.Containers(ctx, "conductor.namespace="+d.namespace)
	if err != nil {
		return nil, err
	}
	var cs []container
	for _, c := range all {
		if c.State == "running" {
			cs = append(cs, container{c.ID, c.Labels["conductor.revision"]})
		}
	}
	slices.SortFunc(cs, func(a, b container) int { return strings.Compare(a.id, b.id) })
	return cs, nil
}

// wantRunning fails unless just the service's replicas run, all of the revision.
func (d *demo) wantRunning(ctx context.Context, revision string) ([]container, error) {
	cs, err := d.running(ctx)
	if err != nil {
		return nil, err
	}
	good := len(cs) == replicas
	for _, c := range cs {
		good = good && c.revision == revision
	}
	if !good {
		return nil, fmt.Errorf("%d containers of %s should run, and no other; running: %v", replicas, revision, cs)
	}
	return cs, nil
}

// down removes all that the engine has of the namespace.
func (d *demo) down(ctx context.Context) error {
	if !strings.HasPrefix(d.namespace, "demo-") {
		return fmt.Errorf("%q is no namespace of a demonstration", d.namespace)
	}
	var errs []error
	cs, err := d.engine.Containers(ctx, "conductor.namespace="+d.namespace)
	errs = append(errs, err)
	for _, c := range cs {
		errs = append(errs, d.engine.RemoveContainer(ctx, c.ID))
	}
	ns, err := d.engine.Networks(ctx)
	errs = append(errs, err)
	for _, n := range ns {
		if n.Name == d.namespace || n.Labels["conductor.namespace"] == d.namespace {
			errs = append(errs, d.engine.RemoveNetwork(ctx, n.ID))
		}
	}
	for _, prefix := range []string{d.namespace + "/", d.repo() + ":"} {
		tags, err := d.engine.Tags(ctx, prefix)
		errs = append(errs, err)
		for _, t := range tags {
			errs = append(errs, d.engine.RemoveImage(ctx, t))
		}
	}
	return errors.Join(errs...)
}
