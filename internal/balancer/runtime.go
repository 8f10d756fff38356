package balancer

// RuntimeRequest asks the host with the balancer to send commands, one a line,
// to HAProxy's runtime API. internal/session answers it, with a string.
type RuntimeRequest struct {
	Socket string `json:"socket"` // absolute
	Lines  string `json:"lines"`
}
