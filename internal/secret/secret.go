// Package secret reads what a release's environment is made of, env files and
// secrets, and places secrets that are to be files.
//
// Values never get into an error, a log line or a printed Material. It imports
// spec and fault; converge and cmd use it.
package secret

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
