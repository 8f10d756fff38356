// Package secret reads what a release's environment is made of, env files and
// secrets, and places secrets that are to be files.
//
// Values never get into an error, a log line or a printed Material. It imports
// spec and fault; converge, notify and cmd use it.
package secret

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

// maxSize bounds env files and secrets: more is a mistake, /dev/zero say.
const maxSize = 1 << 20 // bytes

// Material is the resolved environment of one release. Printing it, in any
// form, shows no values.
type Material struct {
	// Env are KEY=VALUE pairs, ordered by key: environment over env files, and
	// secrets over both.
	Env []string
	// Files are the contents of the secrets that the container sees as
	// /run/secrets/NAME, by name.
	Files map[string][]byte
	// Sum identifies the contents: SHA-256 over what the env files say, and,
	// where there are secrets, their HMAC-SHA-256 under the host's key.
	Sum [32]byte
}

// String says how much there is, and nothing of what it is.
func (m Material) String() string {
	return fmt.Sprintf("secret.Material(%d variables, %d files)", len(m.Env), len(m.Files))
}

// Format makes every verb of fmt print as String does.
func (m Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// LogValue makes slog print it as String does.
func (m Material) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalJSON makes encoding/json print it as String does.
func (m Material) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// Reader reads env files and secrets, and places secrets as files. It is safe
// for concurrent use.
type Reader struct {
	key    func() ([]byte, error)
	runDir string
}

// New returns a Reader. key is asked for the host's key when there are secrets
// to identify; runDir is the folder in which Place puts files.
func New(key func() ([]byte, error), runDir string) *Reader {
	return &Reader{key: key, runDir: runDir}
}

// Read resolves environment, env files and secrets. It reports all that cannot
// be read at once, as fault.ErrHost; a container whose ctx ended gets its cause.
func (r *Reader) Read(ctx context.Context, c spec.Container) (Material, error) {
	env, errs := readEnvFiles(c.EnvFile)
	sum := sha256.New()
	writePairs(sum, env)
	maps.Copy(env, c.Environment)

	secrets, secretErrs := readSecrets(ctx, c.Secrets)
	errs = append(errs, secretErrs...)
	m := Material{Files: map[string][]byte{}}
	exact := map[string]string{}
	for name, value := range secrets {
		s := c.Secrets[name]
		exact[name] = string(s.As) + "\x00" + string(value)
		if s.As == spec.AsFile {
			m.Files[name] = value
			continue
		}
		env[name] = string(value)
	}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if err := checkValue(c, k, env[k]); err != nil {
			errs = append(errs, err)
		}
		m.Env = append(m.Env, k+"="+env[k])
	}
	if err := ctx.Err(); err != nil {
		return Material{}, fmt.Errorf("read env files and secrets: %w", context.Cause(ctx))
	}
	if len(errs) > 0 {
		return Material{}, errors.Join(errs...)
	}
	if len(exact) > 0 {
		key, err := r.key()
		if err != nil {
			return Material{}, err
		}
		mac := hmac.New(sha256.New, key)
		writePairs(mac, exact)
		sum.Write(mac.Sum(nil))
	}
	sum.Sum(m.Sum[:0])
	return m, nil
}

// checkValue refuses what would not reach the process as it is: the kernel
// ends a variable at a NUL, and the engine's API is JSON, in which bytes that
// are no UTF-8 turn into others in silence.
func checkValue(c spec.Container, key, value string) error {
	what, where := "", "the variable "+key
	if _, ok := c.Secrets[key]; ok {
		where = "secret " + key
	}
	switch {
	case strings.ContainsRune(value, 0):
		what = "has a NUL byte, which no variable can have"
	case !utf8.ValidString(value):
		what = "is not UTF-8 text, which a variable has to be"
	default:
		return nil
	}
	return fault.New(fault.ErrHost, "make it a secret with as: file, which may have any bytes, or encode it (base64)", "%s %s", where, what)
}

// writePairs feeds the pairs so that no two sets of pairs look the same.
func writePairs(h hash.Hash, pairs map[string]string) {
	put := func(s string) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		_, _ = io.WriteString(h, s)
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(pairs))))
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		put(k)
		put(pairs[k])
	}
}

// readSecrets reads all, four at a time: each command may ask a server.
func readSecrets(ctx context.Context, secrets map[string]spec.Secret) (map[string][]byte, []error) {
	names := slices.Sorted(maps.Keys(secrets))
	values := make([][]byte, len(names))
	errs := make([]error, len(names))
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			values[i], errs[i] = readSecret(ctx, name, secrets[name])
		})
	}
	wg.Wait()
	read := make(map[string][]byte, len(names))
	for i, name := range names {
		if errs[i] == nil {
			read[name] = values[i]
		}
	}
	return read, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func readSecret(ctx context.Context, name string, s spec.Secret) ([]byte, error) {
	if len(s.Command) > 0 {
		return runCommand(ctx, name, s.Command)
	}
	b, err := readFile(s.File)
	if err != nil {
		return nil, fault.New(fault.ErrHost, fileHint(err, s.File), "read secret %s: %w", name, err)
	}
	if s.As != spec.AsFile {
		b = trimLine(b)
	}
	return b, nil
}

// File reads a secret of Conductor's own from a file, less one line end at its
// end; what names it in errors, which are fault.ErrHost.
func File(what, path string) (string, error) {
	b, err := readFile(path)
	if err != nil {
		return "", fault.New(fault.ErrHost, fileHint(err, path), "read %s: %w", what, err)
	}
	return string(trimLine(b)), nil
}

// trimLine takes away the line end that editors and echo put at the end.
func trimLine(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// readFile reads a regular file of at most maxSize. A pipe could keep it
// waiting for ever.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return b, nil
}

func fileHint(err error, path string) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "put " + path + " on this host (config management brings it), or correct the path in the definition"
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EPERM):
		return "run as root, or as a user that may read " + path
	}
	return "look at " + path
}
