package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// maxAnswer is how long the answer to a question may be, in bytes.
const maxAnswer = 16 << 20

// Ask does a request whose answer is one JSON document, and reads it into to.
func Ask(ctx context.Context, t Transport, host Host, r Request, to any) error {
	var b bounded
	if err := t.Do(ctx, host, r, Streams{Stdout: &b}); err != nil {
		return err
	}
	if err := json.Unmarshal(b.Bytes(), to); err != nil {
		return fmt.Errorf("%s: read the answer to %s: %w", host.Name, r.Do, err)
	}
	return nil
}

type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxAnswer {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return b.Buffer.Write(p)
}
