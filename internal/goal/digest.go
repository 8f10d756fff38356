package goal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Sum fills in the release's digest. contents identifies what its env files
// and secrets say; two releases of one digest make the same instances.
func (r *Release) Sum(contents [32]byte) {
	h := sha256.New()
	// Maps are written in the order of their keys, so equal releases are equal bytes.
	err := json.NewEncoder(h).Encode(struct {
		Revision, Image string
		Container       any
		Contents        [32]byte
	}{r.Revision, r.Image, r.Container, contents})
	if err != nil {
		panic("release cannot be encoded: " + err.Error()) // all of its fields are plain data
	}
	r.Digest = hex.EncodeToString(h.Sum(nil))
}

// Short is the digest as people see it: 12 digits.
func (r Release) Short() string { return r.Digest[:min(12, len(r.Digest))] }

// Tag is the image name that keeps the release's image on the host.
func (r Release) Tag(namespace, service string) string {
	return namespace + "/" + service + ":" + r.Short()
}
