package session

import (
	"context"
	"encoding/json"

	"conductor/internal/fault"
	"conductor/internal/ship"
)

// layers, receive and load are a ship.Target's calls, at the host's end.
func (s *Station) layers(ctx context.Context, c Call) error {
	var q ship.Question
	if err := body(c, &q); err != nil {
		return err
	}
	a, err := s.Ship.Layers(ctx, q)
	if err != nil {
		return err
	}
	return answer(c.Stdout, a)
}

func (s *Station) receive(ctx context.Context, c Call) error {
	var p ship.Part
	if err := body(c, &p); err != nil {
		return err
	}
	held, err := s.Ship.Put(ctx, p, c.Stdin)
	if err != nil {
		return err
	}
	return answer(c.Stdout, held)
}

func (s *Station) load(ctx context.Context, c Call) error {
	var m ship.Manifest
	if err := json.NewDecoder(c.Stdin).Decode(&m); err != nil {
		return fault.New(fault.ErrUsage, "", "read the image's manifest: %w", err)
	}
	l, err := s.Ship.Load(ctx, m)
	if err != nil {
		return err
	}
	return answer(c.Stdout, l)
}
