package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// Image finds a local image by name or ID.
func (e *Engine) Image(ctx context.Context, ref string) (engine.Image, error) {
	if err := e.agree(ctx); err != nil {
		return engine.Image{}, err
	}
	r, err := e.api.ImageInspect(ctx, ref)
	if err != nil {
		return engine.Image{}, e.fail(ctx, err, "image %s", ref)
	}
	return engine.Image{ID: r.ID, Digests: r.RepoDigests, Size: r.Size, Layers: r.RootFS.Layers}, nil
}

// Pull fetches an image with the credentials that `docker login` stored.
func (e *Engine) Pull(ctx context.Context, ref string) (engine.Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return engine.Image{}, fault.New(fault.ErrImage, "", "pull image %q: %w", ref, err)
	}
	if err := e.agree(ctx); err != nil {
		return engine.Image{}, err
	}
	// Credentials that cannot be read may not be needed: public images are
	// still to be had. They are told of when the pull fails.
	auth, noAuth := credentials(ctx, reference.Domain(named))
	header := ""
	if auth != nil {
		if header, err = authconfig.Encode(*auth); err != nil {
			return engine.Image{}, fmt.Errorf("pull image %s: %w", ref, err)
		}
	}
	if err := e.pull(ctx, ref, header); err != nil {
		return engine.Image{}, e.failPull(ctx, err, ref, reference.Domain(named), auth != nil, noAuth)
	}
	return e.Image(ctx, ref)
}

func (e *Engine) pull(ctx context.Context, ref, auth string) error {
	res, err := e.api.ImagePull(ctx, ref, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		return err
	}
	defer res.Close()
	// What goes wrong once the answer has begun is a line of the progress.
	for m, err := range res.JSONMessages(ctx) {
		if err != nil {
			return err
		}
		if m.Error != nil {
			return &answer{m.Error}
		}
	}
	return nil
}

// denials are the ways in which registries, and engines for them, say that
// there is no such image, or none for this user: they do not tell the two apart.
var denials = []string{
	"manifest unknown", "manifest for", "not found", "repository does not exist", "pull access denied",
	"unauthorized", "denied", "name unknown", "no basic auth credentials", "authentication required", "forbidden",
}

// failPull is fail for a pull: what the registry answers is no answer of the
// engine, and is about the image.
func (e *Engine) failPull(ctx context.Context, err error, ref, domain string, loggedIn bool, noAuth error) error {
	msg := tidy(err)
	switch k := kind(err, msg); {
	case ctx.Err() != nil, k == engine.ErrUnreachable, k == engine.ErrNoSpace:
		return e.fail(ctx, err, "pull image %s", ref)
	}
	if noAuth != nil {
		msg += fmt.Sprintf(" (credentials: %v)", noAuth)
	}
	low := strings.ToLower(msg)
	for _, d := range denials {
		if !strings.Contains(low, d) {
			continue
		}
		hint := "was it built and pushed? if it is private: docker login " + domain + ", as the user who runs this"
		if loggedIn {
			hint = "was it built and pushed, and may the user who is logged in to " + domain + " read it?"
		}
		return fault.New(fault.ErrImage, hint, "pull image %s: %w: %s", ref, engine.ErrNotFound, msg)
	}
	return fault.New(fault.ErrImage, "can this host reach "+domain+"?", "pull image %s: %s", ref, msg)
}

// Tag gives an image another name.
func (e *Engine) Tag(ctx context.Context, image, ref string) error {
	full, err := tagged(ref)
	if err != nil {
		return fmt.Errorf("tag image %s: %w", ref, err)
	}
	if err := e.agree(ctx); err != nil {
		return err
	}
	if _, err := e.api.ImageTag(ctx, client.ImageTagOptions{Source: image, Target: full}); err != nil {
		return e.fail(ctx, err, "tag image %s as %s", image, ref)
	}
	return nil
}

// Untag takes a name away, never by force: the last name of an image that a
// container was made from stays, which is ErrConflict.
func (e *Engine) Untag(ctx context.Context, ref string) error {
	// In full, with domain and tag, it can be no (part of an) ID, which would
	// take every name of the image away.
	full, err := tagged(ref)
	if err != nil {
		return fmt.Errorf("untag image %s: %w", ref, err)
	}
	if err := e.agree(ctx); err != nil {
		return err
	}
	_, err = e.api.ImageRemove(ctx, full, client.ImageRemoveOptions{PruneChildren: true})
	if err == nil {
		return nil
	}
	err = e.fail(ctx, err, "untag image %s", ref)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

// Tags returns the names of local images that begin with prefix, in order.
func (e *Engine) Tags(ctx context.Context, prefix string) ([]string, error) {
	if err := e.agree(ctx); err != nil {
		return nil, err
	}
	list, err := e.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, e.fail(ctx, err, "list images")
	}
	var names []string
	for _, i := range list.Items {
		for _, n := range i.RepoTags {
			if strings.HasPrefix(n, prefix) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// tagged returns the whole name: domain, path and tag.
func tagged(ref string) (string, error) {
	any, err := reference.ParseAnyReference(ref)
	if err != nil {
		return "", err
	}
	named, ok := any.(reference.Named)
	if !ok || strings.HasPrefix(ref, "sha256:") {
		return "", fmt.Errorf("%q is an ID and no name", ref)
	}
	if _, ok := named.(reference.Digested); ok {
		return "", fmt.Errorf("%q has a digest and is no name to give or take", ref)
	}
	return reference.TagNameOnly(named).String(), nil
}
