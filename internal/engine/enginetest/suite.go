package enginetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

// Instance is an engine under the conformance suite, with what the suite may
// use of it.
type Instance struct {
	Engine engine.Archives
	// Prefix begins the name of everything that the suite makes, and Labels
	// are on it: whoever opens the instance clears it away by them.
	Prefix string
	Labels map[string]string
	// Image and Other are names of two different images of the test program.
	// Other is the only name of its image.
	Image, Other string
}

// Suite holds an engine to the contract of engine.Engine. open is called once
// for each test, and gives an engine with no containers under its labels.
func Suite(t *testing.T, open func(t *testing.T) Instance) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"Info", testInfo},
		{"Image_FoundByNameAndID", testImage},
		{"Tag_MovesAndUntagTakesAway", testTag},
		{"Untag_LastNameOfAUsedImageStays", testUntagUsed},
		{"Images_HaveTheirLayers", testImages},
		{"Save_CanBeLoaded", testSave},
		{"Save_WriterFails", testSaveWriter},
		{"Load_LayersThatAreHereCanBeLeftOut", testLoadPart},
		{"Load_RefusesWhatIsNotWhole", testLoadRefused},
		{"Load_ReaderFails", testLoadReader},
		{"Network_IsMadeOnce", testNetwork},
		{"Create_IsIdempotentByName", testCreate},
		{"Create_LabelsOfConductorWin", testLabels},
		{"List_IsOrderedAndFiltered", testList},
		{"Start_CanBeRepeated", testStart},
		{"Start_MissingCommand", testCannotRun},
		{"Stop_CanBeRepeated", testStop},
		{"Stop_KillsAfterGrace", testStopKill},
		{"Stop_WaitsForTheEnd", testStopLinger},
		{"Stop_ContextEnds", testStopContext},
		{"Kill", testKill},
		{"Remove_RefusesARunningOne", testRemove},
		{"Wait_ReturnsTheCode", testWait},
		{"Wait_BeginsBeforeTheStart", testWaitEarly},
		{"OOM_IsFlagged", testOOM},
		{"Address_IsHeldWhileRunning", testAddress},
		{"Attach_CarriesAll", testAttach},
		{"Attach_StdinUntilItsEnd", testAttachStdin},
		{"Attach_ToARunningOne", testAttachRunning},
		{"Attach_OutputEndsBeforeTheProcess", testAttachMute},
		{"Attach_ContextEnds", testAttachContext},
		{"Attach_WriterFails", testAttachWriter},
		{"Attach_Terminal", testAttachTTY},
		{"Logs_AreApart", testLogs},
		{"Logs_FollowUntilTheEnd", testLogsFollow},
		{"Exec_ReturnsTheCode", testExec},
		{"Events_AreComplete", testEvents},
		{"NotFound_Everywhere", testNotFound},
		{"Context_EndsEveryCall", testContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&bench{T: t, Instance: open(t)}) })
	}
}

// bench is one test of the suite at work.
type bench struct {
	*testing.T
	Instance
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("got error %v, want %v", err, want)
	}
}

func (b *bench) name(n string) string { return b.Prefix + "-" + n }

// plan is a container of the test program on the suite's network.
func (b *bench) plan(name string, command []string) engine.Create {
	b.Helper()
	im, err := b.Engine.Image(b.ctx(), b.Image)
	b.must(err)
	n, err := b.Engine.Network(b.ctx(), b.name("net"), netip.Prefix{}, b.Labels)
	b.must(err)
	return engine.Create{
		Name: b.name(name), Image: im.ID, Labels: b.Labels, Network: n.Name, Command: command,
		Spec: spec.Container{
			Init:    true,
			Logging: spec.Logging{Driver: "local", Options: map[string]string{"max-size": "1m"}},
		},
	}
}

func (b *bench) create(c engine.Create) string {
	b.Helper()
	id, err := b.Engine.Create(b.ctx(), c)
	b.must(err)
	return id
}

// run creates and starts.
func (b *bench) run(name string, command []string) string {
	b.Helper()
	id := b.create(b.plan(name, command))
	b.must(b.Engine.Start(b.ctx(), id))
	return id
}

// ready is run, and waits until the program has said that it handles signals.
func (b *bench) ready(name string, command []string) string {
	b.Helper()
	id := b.run(name, command)
	for {
		var out bytes.Buffer
		b.must(b.Engine.Logs(b.ctx(), id, engine.LogOptions{}, &out, nil))
		if out.String() == "ready\n" {
			return id
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-b.ctx().Done():
			b.Fatalf("container says %q, not that it is ready", out.String())
		}
	}
}

func (b *bench) inspect(id string) engine.Container {
	b.Helper()
	c, err := b.Engine.Inspect(b.ctx(), id)
	b.must(err)
	return c
}

func (b *bench) wait(id string) int {
	b.Helper()
	code, err := b.Engine.Wait(b.ctx(), id)
	b.must(err)
	return code
}

func testInfo(b *bench) {
	i, err := b.Engine.Info(b.ctx())
	b.must(err)
	if i.Name == "" || i.Version == "" || i.APIVersion == "" || i.Endpoint == "" || i.RootDir == "" {
		b.Errorf("info has gaps: %+v", i)
	}
}

func testImage(b *bench) {
	byName, err := b.Engine.Image(b.ctx(), b.Image)
	b.must(err)
	byID, err := b.Engine.Image(b.ctx(), byName.ID)
	b.must(err)
	if byID.ID != byName.ID || !strings.HasPrefix(byID.ID, "sha256:") || byID.Size == 0 {
		b.Errorf("by name %+v, by ID %+v", byName, byID)
	}
	other, err := b.Engine.Image(b.ctx(), b.Other)
	b.must(err)
	if other.ID == byName.ID {
		b.Errorf("two images have one ID")
	}
	_, err = b.Engine.Image(b.ctx(), b.Image+"-absent")
	b.is(err, engine.ErrNotFound)
}

func testTag(b *bench) {
	one, err := b.Engine.Image(b.ctx(), b.Image)
	b.must(err)
	two, err := b.Engine.Image(b.ctx(), b.Other)
	b.must(err)
	ref := b.Prefix + "/service:r1"
	for _, id := range []string{one.ID, one.ID, two.ID} { // again, and from another
		b.must(b.Engine.Tag(b.ctx(), id, ref))
		got, err := b.Engine.Image(b.ctx(), ref)
		b.must(err)
		if got.ID != id {
			b.Errorf("%s is %s, want %s", ref, got.ID, id)
		}
	}
	b.must(b.Engine.Tag(b.ctx(), one.ID, b.Prefix+"/service:r0"))
	names, err := b.Engine.Tags(b.ctx(), b.Prefix+"/service:")
	b.must(err)
	if want := []string{b.Prefix + "/service:r0", ref}; !slices.Equal(names, want) {
		b.Errorf("names %q, want %q", names, want)
	}
	b.must(b.Engine.Untag(b.ctx(), b.Prefix+"/service:r0"))
	b.is(b.Engine.Tag(b.ctx(), "sha256:"+strings.Repeat("0", 64), ref), engine.ErrNotFound)
	for range 2 {
		b.must(b.Engine.Untag(b.ctx(), ref))
		_, err = b.Engine.Image(b.ctx(), ref)
		b.is(err, engine.ErrNotFound)
	}
	_, err = b.Engine.Image(b.ctx(), two.ID)
	b.must(err) // it has another name

	b.must(b.Engine.Untag(b.ctx(), b.Other))
	_, err = b.Engine.Image(b.ctx(), two.ID)
	b.is(err, engine.ErrNotFound) // that was its last

	if err := b.Engine.Untag(b.ctx(), one.ID); err == nil {
		b.Errorf("an ID was taken for a name")
	}
	_, err = b.Engine.Image(b.ctx(), b.Image)
	b.must(err)
}

func testUntagUsed(b *bench) {
	im, err := b.Engine.Image(b.ctx(), b.Other)
	b.must(err)
	c := b.plan("user", Forever)
	c.Image = im.ID
	id := b.create(c)
	b.is(b.Engine.Untag(b.ctx(), b.Other), engine.ErrConflict)
	_, err = b.Engine.Image(b.ctx(), b.Other)
	b.must(err)
	b.must(b.Engine.Remove(b.ctx(), id))
	b.must(b.Engine.Untag(b.ctx(), b.Other))
}

func testNetwork(b *bench) {
	name := b.name("lan")
	n, err := b.Engine.Network(b.ctx(), name, netip.Prefix{}, b.Labels)
	b.must(err)
	if n.ID == "" || n.Name != name || !n.Subnet.IsValid() || !n.Subnet.Contains(n.Gateway) || n.Subnet != n.Subnet.Masked() {
		b.Errorf("network %+v", n)
	}
	again, err := b.Engine.Network(b.ctx(), name, n.Subnet, b.Labels)
	b.must(err)
	if again != n {
		b.Errorf("first %+v, then %+v", n, again)
	}
	_, err = b.Engine.Network(b.ctx(), name, netip.MustParsePrefix("192.0.2.0/28"), b.Labels)
	b.is(err, engine.ErrConflict)

	type result struct {
		n   engine.Network
		err error
	}
	const callers = 4
	results := make(chan result, callers)
	ctx := b.ctx()
	for range callers {
		go func() {
			n, err := b.Engine.Network(ctx, b.name("at-once"), netip.Prefix{}, b.Labels)
			results <- result{n, err}
		}()
	}
	ids := map[string]bool{}
	for range callers {
		r := <-results
		b.must(r.err)
		if ids[r.n.ID] = true; r.n.Subnet.Overlaps(n.Subnet) {
			b.Errorf("%s overlaps %s", r.n.Subnet, n.Subnet)
		}
	}
	if len(ids) != 1 {
		b.Errorf("%d networks were made, want 1", len(ids))
	}
}

func testCreate(b *bench) {
	c := b.plan("one", Forever)
	id := b.create(c)
	_, err := b.Engine.Create(b.ctx(), c)
	b.is(err, engine.ErrConflict)
	for _, key := range []string{id, c.Name} {
		got := b.inspect(key)
		if got.ID != id || got.Name != c.Name || got.Image != c.Image || got.State != engine.Created {
			b.Errorf("inspect %s: %+v", key, got)
		}
		if !got.StartedAt.IsZero() || !got.FinishedAt.IsZero() || got.PID != 0 || time.Since(got.Created) > time.Minute {
			b.Errorf("times of a new container: %+v", got)
		}
	}
	c.Name, c.Image = b.name("no-image"), "sha256:"+strings.Repeat("0", 64)
	_, err = b.Engine.Create(b.ctx(), c)
	b.is(err, engine.ErrNotFound)
}

func testLabels(b *bench) {
	c := b.plan("labelled", Forever)
	var key, value string
	for key, value = range b.Labels {
		break
	}
	c.Spec.Labels = map[string]string{key: "stolen", "team": "payments"}
	got := b.inspect(b.create(c))
	if got.Labels[key] != value || got.Labels["team"] != "payments" {
		b.Errorf("labels %v", got.Labels)
	}
}

func testList(b *bench) {
	n, err := b.Engine.Network(b.ctx(), b.name("net"), netip.Prefix{}, b.Labels)
	b.must(err)
	for _, name := range []string{"b", "a", "c"} {
		c := b.plan(name, Forever)
		c.Labels = map[string]string{"slot": name}
		for k, v := range b.Labels {
			c.Labels[k] = v
		}
		c.Address = nth(n.Subnet, 20+int(name[0]))
		b.create(c)
	}
	b.must(b.Engine.Start(b.ctx(), b.name("b")))
	b.must(b.Engine.Start(b.ctx(), b.name("c")))
	b.must(b.Engine.Stop(b.ctx(), b.name("c"), 0))
	all, err := b.Engine.List(b.ctx(), b.Labels)
	b.must(err)
	var got []string
	for _, c := range all {
		got = append(got, c.Name+" "+string(c.State)+" "+c.Labels["slot"])
		if want := b.inspect(c.ID); c.Address != nth(n.Subnet, 20+int(c.Labels["slot"][0])) || c.Address != want.Address || c.Image != want.Image ||
			c.Created.Sub(want.Created).Abs() > time.Second {
			b.Errorf("list %+v, inspect %+v", c, want)
		}
	}
	want := []string{b.name("a") + " created a", b.name("b") + " running b", b.name("c") + " exited c"}
	if !slices.Equal(got, want) {
		b.Errorf("list %q, want %q", got, want)
	}
	one := map[string]string{"slot": "b"}
	for k, v := range b.Labels {
		one[k] = v
	}
	all, err = b.Engine.List(b.ctx(), one)
	b.must(err)
	if len(all) != 1 || all[0].Name != b.name("b") {
		b.Errorf("list by two labels: %+v", all)
	}
	ids := []string{b.inspect(b.name("c")).ID, b.inspect(b.name("a")).ID, strings.Repeat("0", 64)}
	all, err = b.Engine.List(b.ctx(), b.Labels, ids...)
	b.must(err)
	if len(all) != 2 || all[0].Name != b.name("a") || all[1].Name != b.name("c") {
		b.Errorf("list by IDs: %+v", all)
	}
	for labels, ids := range map[string][]string{"": ids[2:], "b": ids} {
		only := maps.Clone(b.Labels)
		if labels != "" {
			only["slot"] = labels
		}
		if all, err = b.Engine.List(b.ctx(), only, ids...); err != nil || len(all) > 0 {
			b.Errorf("list by IDs that are not there, or not of the labels: %+v, %v", all, err)
		}
	}
}

// nth returns the nth address of a subnet.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}
