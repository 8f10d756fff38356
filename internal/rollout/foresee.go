package rollout

// Foresee returns the steps of a deploy in which all goes well, in the order in
// which they may begin.
func Foresee(in Input) []Step {
	hosts := append([]Host(nil), in.Hosts...)
	in.Hosts = hosts
	var steps []Step
	// Each host takes eight steps at most, and the whole three.
	for range 8*len(hosts) + 3 {
		out := Next(in)
		if out.Done || out.Stopped != "" {
			break
		}
		steps = append(steps, out.Steps...)
		for _, s := range out.Steps {
			in.succeed(s)
		}
		for n := range hosts { // what is awaited comes
			h := &hosts[n]
			h.Idle = h.Idle || !h.In
			h.Taking = h.In
		}
	}
	return steps
}

// succeed is what is true after a step.
func (in *Input) succeed(s Step) {
	in.Tested = in.Tested || s.Do == Test
	in.Migrated = in.Migrated || s.Do == Migrate
	in.Confirmed = in.Confirmed || s.Do == Confirm
	for n := range in.Hosts {
		h := &in.Hosts[n]
		for _, name := range s.Out {
			if name == h.Name {
				h.In = false
			}
		}
		for _, name := range s.Hosts {
			if name != h.Name {
				continue
			}
			switch s.Do {
			case Image:
				h.HasImage = true
			case Drain, Exclude:
				h.In = false
			case Upgrade:
				h.Current, h.Sound = true, true
			case Verify:
				h.Verified, h.Up = true, true
			case Admit, Swap:
				h.In, h.Up = true, true
			}
		}
	}
}
