package service

// Desired is the desired state of one telemt process: one inbound, and what all inbounds
// of a Service have in common.
type Desired struct {
	Inbound   Inbound
	Upstreams []Upstream
	Advanced  map[string]any
}

// ByTag splits the Service into one Desired for each inbound, by the inbound's tag. The
// results share the Service's memory.
func (s Service) ByTag() map[string]Desired {
	all := make(map[string]Desired, len(s.Inbounds))
	for _, in := range s.Inbounds {
		shared := Options{s.Upstreams, s.Advanced}
		if in.Options != nil {
			shared, in.Options = *in.Options, nil
		}
		all[in.Tag] = Desired{in, shared.Upstreams, shared.Advanced}
	}
	return all
}
