package remote

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"conductor/internal/fault"
)

// Protocol is the version of what both ends say to each other. It rises when
// an end of the version before would misunderstand.
const Protocol = 1

// MaxRequest is how long a request may be, in bytes of JSON.
const MaxRequest = 1 << 20

// Do is what a host is asked to do.
type Do string

const (
	// Observe answers with one JSON document: how the host is, and the service
	// where one is named.
	Observe Do = "observe"
	// Hold takes the fleet's lock of a service: writes Held once it has it, and
	// keeps it until the session ends. Exit 7 where somebody else has it, unless
	// the request says to wait. With Attend it answers what Observe would before
	// that, as a Sight, and takes the lock at the line Take.
	Hold Do = "hold"
	// Command is one of conductor's own commands (Args), with --output json.
	Command Do = "command"
	// Exec is the same, with the streams and the exit code of what it runs:
	// service exec, run, service logs.
	Exec Do = "exec"
	// Bring has the image of a revision of the service on the host.
	Bring Do = "bring"
	// Migrate runs Command once for a revision of the service.
	Migrate Do = "migrate"
	// Mark notes what is true of a revision over the whole fleet.
	Mark Do = "mark"
	// Verify asks the service through the host's own proxy.
	Verify Do = "verify"
	// Layers answers what of an image the host has, Receive takes a part of a
	// layer, and Load makes an image of what was received (internal/ship).
	Layers  Do = "layers"
	Receive Do = "receive"
	Load    Do = "load"
	// Definitions answers with the texts of the host's definitions, by service;
	// WriteDefinitions makes such texts those of the host.
	Definitions      Do = "definitions"
	WriteDefinitions Do = "write-definitions"
	// HAProxy and NginxFile ask the balancer that runs on the host
	// (internal/balancer). Body is the first question of a Dialogue; each line of
	// the input is one more.
	HAProxy   Do = "haproxy"
	NginxFile Do = "nginx-file"
	// Root is a script for root's shell, on a host that may have no conductor
	// (Bare); no conductor is asked for it.
	Root Do = "root"
	// Recycling answers when the host was last recycled, with its boot ID, and
	// notes what Body says. HoldAll is Hold for all services in Body, Refresh
	// upgrades the host's packages, RefreshImages fetches images of live releases
	// again, Reboot boots the host anew.
	Recycling     Do = "recycling"
	HoldAll       Do = "hold-all"
	Refresh       Do = "refresh"
	RefreshImages Do = "refresh-images"
	Reboot        Do = "reboot"
)

// Input is what the far end reads after the request's line, and so what the end
// of the context means.
type Input int

const (
	// Lines: the line "interrupt" is Ctrl-C: the request comes to a clean end.
	// The end of the input is none: what was asked goes on to its own end when
	// the connection is cut.
	Lines Input = iota
	// Beats: a line each BeatEvery says that the near end lives; the line Take
	// that what was looked at is to be locked. What was asked ends with the input,
	// and when there was no line for BeatLost.
	Beats
	// Bytes: Streams.Stdin. What was asked ends when nobody reads its output.
	Bytes
)

// Input tells what is read after the request's line.
func (d Do) Input() Input {
	switch d {
	case Hold, HoldAll:
		return Beats
	case Exec, Receive, Load, WriteDefinitions, Root, HAProxy, NginxFile:
		return Bytes
	}
	return Lines
}

// Lasts says that the session is there for as long as the asking conductor wants
// it: nobody may wait for its end.
func (d Do) Lasts() bool {
	switch d {
	case Hold, HoldAll, HAProxy, NginxFile:
		return true
	}
	return false
}

// Request is what a host is asked. Do decides which of the fields after Hold
// mean something.
type Request struct {
	Protocol int    `json:"protocol"` // filled in by Encode
	Version  string `json:"version"`  // of the asking conductor
	Do       Do     `json:"do"`
	By       string `json:"by,omitempty"`     // who asks, for locks and the history: "alice@laptop"
	Reason   string `json:"reason,omitempty"` // why, for the history
	// Hold is the token of the fleet's lock, without which the request is
	// refused (exit 7); empty: it needs none.
	Hold string `json:"hold,omitempty"`

	Service  string `json:"service,omitempty"`
	Revision string `json:"revision,omitempty"`
	Token    string `json:"token,omitempty"`  // Hold: by which others say that they know the holder
	Wait     bool   `json:"wait,omitempty"`   // Hold: wait for the lock
	Attend   bool   `json:"attend,omitempty"` // Hold: look first, and take the lock when told to
	// Look has Hold and Command answer with what Observe would, too: a line that
	// is a Sight, before Held, and after a Command that ended well. A question of
	// its own would be another session.
	Look bool `json:"look,omitempty"`

	Whole bool   `json:"whole,omitempty"` // Observe, Attend: look for what keeps the host from an upgrade, too
	Mark  string `json:"mark,omitempty"`  // Mark: which

	Args    []string `json:"args,omitempty"`    // Command, Exec: as after "conductor"
	Command []string `json:"command,omitempty"` // Migrate: what runs in the container

	// Body is what Layers, Receive, HAProxy, NginxFile, HoldAll and Recycling ask
	// with, in the form of the room that answers.
	Body json.RawMessage `json:"body,omitempty"`
}

// What is what is asked, in a word or two, for messages: "service upgrade".
func (r Request) What() string {
	if r.Do != Command && r.Do != Exec {
		return string(r.Do)
	}
	var words []string
	for _, w := range r.Args {
		if strings.HasPrefix(w, "-") || len(words) == 2 {
			break
		}
		words = append(words, w)
	}
	return cmp.Or(strings.Join(words, " "), string(r.Do))
}

// Encode returns the request's line, its end included. An error is
// fault.ErrUsage.
func (r Request) Encode() ([]byte, error) {
	r.Protocol = Protocol
	if err := r.check(); err != nil {
		return nil, fault.New(fault.ErrUsage, "", "request %s: %w", r.Do, err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fault.New(fault.ErrUsage, "", "request %s: %w", r.Do, err)
	}
	if b.Len() > MaxRequest {
		return nil, fault.New(fault.ErrUsage, "ask for less at once", "request %s has %d bytes, and may have %d", r.Do, b.Len(), MaxRequest)
	}
	return b.Bytes(), nil
}

// Decode reads a request's line for a conductor of the version. A request that
// this one does not understand as it was meant is an error that says who speaks
// what (fault.ErrHost), never understood in part.
func Decode(line []byte, version string) (Request, error) {
	var who struct {
		Protocol int    `json:"protocol"`
		Version  string `json:"version"`
	}
	wrong := func(err error) error {
		return fault.New(fault.ErrUsage, "conductor session is what conductor deploy starts over ssh; it is not for people", "read request: %w", err)
	}
	if !utf8.Valid(line) { // it would be replaced in silence
		return Request{}, wrong(errors.New("it is no UTF-8"))
	}
	if err := json.Unmarshal(line, &who); err != nil {
		return Request{}, wrong(err)
	}
	differ := func(format string, args ...any) error {
		return fault.New(fault.ErrHost, "bring both to one version",
			"the asking conductor is %s, the host's is %s: %w", orUnknown(who.Version), version, fmt.Errorf(format, args...))
	}
	if who.Protocol != Protocol {
		return Request{}, differ("they speak protocol %d and %d", who.Protocol, Protocol)
	}
	var r Request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			return Request{}, differ("the host's does not know what is meant (%w)", err)
		}
		return Request{}, wrong(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Request{}, wrong(errors.New("there is more than one"))
	}
	if err := r.check(); err != nil {
		return Request{}, wrong(err)
	}
	return r, nil
}

// check: what goes into locks, the history and messages has to be a line.
func (r Request) check() error {
	if r.Do == "" {
		return errors.New("it does not say what to do")
	}
	for name, text := range map[string]string{"version": r.Version, "by": r.By, "reason": r.Reason, "do": string(r.Do)} {
		if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) || len(text) > 4096 {
			return fmt.Errorf("%s is no line of text: %.80q", name, text)
		}
	}
	return nil
}

func orUnknown(version string) string {
	if version == "" {
		return "of an unknown version"
	}
	return version
}
