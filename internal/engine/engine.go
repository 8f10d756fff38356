// Package engine is the port to the container engine: what Conductor needs of
// Docker, in our own words.
//
// engine/docker is the adapter and the only importer of the Docker client;
// engine/enginetest has an in-memory engine with faults and the conformance
// suite that both run. It imports spec and fault; converge, health and
// supervise use it, cmd picks the adapter.
package engine

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"conductor/internal/spec"
)

// Errors of an Engine. They are found with errors.Is; anything else is
// unexpected, and permanent for the same arguments.
var (
	// ErrNotFound: no such container, image or network.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the name is taken (Create), or the container is not in the
	// state that the call needs.
	ErrConflict = errors.New("conflict")
	// ErrUnreachable: the engine did not answer. Whether the call took effect
	// is not known. Trying again later can help.
	ErrUnreachable = errors.New("engine does not answer")
	// ErrNoSpace: the host's disk is full.
	ErrNoSpace = errors.New("no space left on device")
	// ErrCannotRun: the container exists, and its process cannot be started:
	// the command is not in the image, a mount is not there, and the like.
	ErrCannotRun = errors.New("cannot be started")
)

// Engine is a container engine on this host. Every call is safe to repeat: a
// repeated call either finds its effect in place or has it again. A call whose
// context ends returns the context's error; it may have taken effect.
// Implementations are safe for concurrent use.
type Engine interface {
	// Info connects, agrees on a version of the API and says what the engine is.
	Info(ctx context.Context) (Info, error)

	// Image finds a local image by name or ID. ErrNotFound: it is not here.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image with the credentials that `docker login` stores.
	// ErrNotFound: the registry has none of that name, or denies it.
	Pull(ctx context.Context, ref string) (Image, error)
	// Tag gives an image another name, taking the name from whatever had it.
	Tag(ctx context.Context, image, ref string) error
	// Untag takes a name away; an image without names and containers goes with
	// it. It never forces, and it is no error when the name is not there.
	Untag(ctx context.Context, ref string) error
	// Tags returns the names of local images that begin with prefix, in order.
	Tags(ctx context.Context, prefix string) ([]string, error)

	// Network returns the bridge network of that name, made with the subnet if
	// it is not there yet. A zero subnet: the engine's adapter picks one that
	// overlaps no network and no route of the host.
	Network(ctx context.Context, name string, subnet netip.Prefix, labels map[string]string) (Network, error)

	// List returns the containers, in any state, that carry all the labels,
	// ordered by name. Fields marked "inspect" in Container may be empty. With IDs
	// it is of those alone, as far as they exist, and costs the engine no look at
	// everything that it has.
	List(ctx context.Context, labels map[string]string, ids ...string) ([]Container, error)
	// Inspect returns all of one container, by name or ID.
	Inspect(ctx context.Context, id string) (Container, error)
	// Create makes a container and does not start it. ErrConflict: the name is
	// taken, look and adopt. ErrNotFound: the image is not here.
	Create(ctx context.Context, c Create) (id string, err error)
	// Start starts a container; a running one stays as it is. ErrCannotRun
	// tells why the process could not be started.
	Start(ctx context.Context, id string) error
	// Stop sends the container's stop signal, and kills what still runs after
	// grace. It returns when the process has ended; an ended container stays
	// as it is.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Kill sends a signal by name (SIGTERM) to the container's process.
	Kill(ctx context.Context, id, signal string) error
	// Remove removes a container that does not run, with its anonymous
	// volumes. ErrConflict: it runs. No error when it is not there.
	Remove(ctx context.Context, id string) error

	// Attach connects streams to a container that is created or runs, and
	// carries them until its output has ended or ctx is done. attached is
	// called once, when all output from then on is sure to be carried: who
	// starts the container then misses nothing. Output arrives complete, and in
	// order on each of the two streams; a writer that is slow makes the
	// container wait. A writer's own error ends it and is what is returned.
	// ErrConflict: the container has ended. Where its start fails, or it is
	// removed without one, ctx has to end.
	//
	// Its end says that no more output comes, not that the process has ended:
	// nil is also what a broken connection to the engine can look like. Wait
	// tells the end. A writer or an attached that does not return keeps Attach
	// from returning.
	Attach(ctx context.Context, id string, s Streams, attached func()) error
	// Logs writes the container's output, apart, until its end or, with
	// Follow, until the container ends or ctx is done.
	Logs(ctx context.Context, id string, o LogOptions, stdout, stderr io.Writer) error
	// Exec runs a command in a running container and returns its exit code.
	Exec(ctx context.Context, id string, e Exec) (code int, err error)
	// Wait returns the exit code once the container has ended; one that was
	// never started has not. ErrUnreachable: the engine went away meanwhile,
	// and the code is not known.
	Wait(ctx context.Context, id string) (code int, err error)

	// Events calls f for each change of a container that carries all the
	// labels, until ctx is done or the stream breaks; ready is called once,
	// when changes from then on are sure to be seen.
	Events(ctx context.Context, labels map[string]string, ready func(), f func(Event)) error
}

// Archives is an Engine that images can be carried out of, and into. The rules
// of Engine hold for it.
type Archives interface {
	Engine

	// Images returns the local images, those without a name too, ordered by ID.
	Images(ctx context.Context) ([]Image, error)
	// SaveImage writes an image, found by name or ID, as a tar: manifest.json
	// names its configuration and its layers in the tar, which may be
	// compressed and come in any order. A writer's own error ends it and is
	// what is returned.
	SaveImage(ctx context.Context, ref string, w io.Writer) error
	// LoadImage reads such a tar of one image, takes the names that it gives
	// the image, and returns the image's ID. But for Info.WholeLoads, layers
	// need not be in it that an image here has, over the same layers below
	// them. What is in it is checked against the sums in the configuration;
	// with WholeLoads, an image that was refused may be there, and cannot be
	// run. A reader's own error ends it and is what is returned. The reader is
	// not to be used again: it may still be read after the return.
	LoadImage(ctx context.Context, archive io.Reader) (id string, err error)
}

// Info says what the engine is.
type Info struct {
	Name       string // Docker, Podman
	Version    string
	APIVersion string
	Endpoint   string
	RootDir    string // where images and containers are kept
	// WholeLoads: LoadImage wants all layers, also those that are here, and an
	// image's ID may depend on how it came here.
	WholeLoads bool
}

// Image is a local image.
type Image struct {
	ID      string // sha256:…
	Digests []string
	Size    int64 // bytes
	// Layers are the sums of its layers, each as a tar that is not compressed
	// (sha256:…), from the bottom. None: it has no files, or is not whole.
	Layers []string
}

// Network is a bridge network of this host.
type Network struct {
	ID      string
	Name    string
	Subnet  netip.Prefix
	Gateway netip.Addr
}

// State is where a container is in its life.
type State string

const (
	Created  State = "created"
	Running  State = "running"
	Paused   State = "paused"
	Exited   State = "exited"
	Removing State = "removing" // on its way out, as good as gone; a removal that failed half-way leaves it, and Error says why
)

// Container is one container as the engine sees it.
type Container struct {
	ID      string
	Name    string // without a slash before it
	Image   string // image ID
	Labels  map[string]string
	State   State
	Created time.Time

	// Address is its address on the network given at Create, also while it
	// does not run.
	Address netip.Addr

	StartedAt  time.Time // inspect; zero: never
	FinishedAt time.Time // inspect; zero: never
	ExitCode   int       // inspect
	OOMKilled  bool      // inspect; may be told a moment after the end, and now and then never
	Error      string    // inspect; why it could not be started
	PID        int       // inspect; 0: does not run
	TTY        bool      // inspect
}

// Create is all that a container is made from.
type Create struct {
	Name    string
	Image   string // image ID
	Labels  map[string]string
	Network string     // name; empty: the engine's default
	Address netip.Addr // on Network; zero: the engine's choice
	// Command replaces Spec.Command where it is not nil (runs).
	Command []string
	// Env are resolved KEY=VALUE pairs: environment, env files, secrets.
	Env []string
	// Files are mounted read-only: path in the container → path on the host.
	Files map[string]string
	// Stdin opens its standard input for the first Attach that brings one, and
	// closes it with that; TTY gives it a terminal (runs). Without, its input
	// is empty.
	Stdin, TTY bool
	// Spec is the rest. Its Environment, EnvFile, Secrets and Image are not
	// looked at: Env, Files and Image above have what became of them.
	Spec spec.Container
}

// LogOptions choose a part of a log.
type LogOptions struct {
	Tail       int // last lines; 0: all
	Since      time.Time
	Follow     bool
	Timestamps bool
}

// Exec is a command inside a running container.
type Exec struct {
	Command []string
	Streams
}

// Streams are what a process is connected to.
type Streams struct {
	// Stdin is read until its end, which the process sees too, but for one at a
	// terminal; nil: none. One that never ends keeps nobody waiting: it loses
	// what it says next, and no more, after the process has ended.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil: dropped
	// TTY: the process has a terminal, and its output is one, Stdout. In Attach
	// it is as the container was created.
	TTY bool
	// Resize carries terminal sizes (columns, rows), from before the process is
	// started; nil: none. A size may be passed over for a later one.
	Resize <-chan [2]uint
}

// Event is a change of one container.
type Event struct {
	Time   time.Time
	Action string // create, start, die, oom, stop, kill, destroy, pause, unpause
	ID     string
	Name   string
	Labels map[string]string
	// ExitCode is that of a die.
	ExitCode int
}
