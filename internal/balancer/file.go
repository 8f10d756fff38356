package balancer

import (
	"crypto/sha256"
	"encoding/hex"
)

// FileRequest asks the host with the balancer for nginx's file with the hosts,
// and to replace its text. internal/session answers it.
type FileRequest struct {
	File string `json:"file"` // absolute; nginx's configuration includes it
	// Text shall be the file's, and what nginx runs; nil: it is only looked at.
	Text *string `json:"text,omitempty"`
	// Was is the Sum of the text that Text was made from. Where the file has
	// another one by now nothing is changed.
	Was string `json:"was,omitempty"`
}

// FileAnswer is what nginx on that host runs.
type FileAnswer struct {
	Text string `json:"text"`
	// Finishing counts nginx's processes that run an earlier configuration
	// until what is in flight there has ended.
	Finishing int `json:"finishing"`
	// Stale: Was is not what the file was, and nothing was changed.
	Stale bool `json:"stale,omitempty"`
}

// Sum is the SHA-256 of a text in hexadecimal.
func Sum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
