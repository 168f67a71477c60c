package agent

import (
	"maps"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// proposal is what the engines are asked to run for a document of Core's: each part as the
// document wants it, or, for a part that was refused, as it runs.
//
//	inbound, mtproto   the running form, without the clients that the document lets in no
//	                   longer; left out where it does not run
//	client             left out: its inbound runs without it
//	outbound           the running form; one that blocks everything where it does not run
//	routing            the running rules. Inbounds that do not run yet wait: without their
//	                   rules they would be more open than they were asked for
//	dns, policy        the running form
//	upstream           the running upstreams. MTProto inbounds that do not run yet wait: they
//	                   would reach Telegram by another way than they were asked for
//
// So a client that the document lets in no longer is out whatever else is refused.
type proposal struct {
	wanted  desired // what the document says, as far as it could be read
	running desired
	refused []*fault.Fault
	parts   map[part]bool // of refused
}

// part identifies a part of a document. Routing, DNS and policy have no tag.
type part struct {
	kind  fault.Kind
	tag   string
	email string // of a client, inside the worker
}

// newProposal proposes what the document wants, without the parts that could not be read.
func newProposal(wanted, running desired, unread []*fault.Fault) *proposal {
	p := &proposal{wanted: wanted, running: running, parts: map[part]bool{}}
	for _, f := range unread {
		p.refused = append(p.refused, f)
		if !readWithout(wanted, f) {
			p.parts[partOf(f)] = true
		}
	}
	return p
}

// readWithout reports whether the document was read without the part that f names, so that
// nothing takes the part's place: a client, and the second one of two parts with one tag.
func readWithout(wanted desired, f *fault.Fault) bool {
	switch f.Kind {
	case fault.Client:
		return true
	case fault.Inbound:
		_, has := wanted.xray.Inbounds[f.Tag]
		return has
	case fault.MTProto:
		return slices.ContainsFunc(wanted.mtproto.Inbounds, func(in service.Inbound) bool { return in.Tag == f.Tag })
	case fault.Outbound:
		i := wanted.xray.OutboundIndex(f.Tag)
		return i >= 0 && !slices.Equal(wanted.xray.Outbounds[i].Config, parse.Blocking(f.Tag).Config)
	case fault.Routing, fault.DNS, fault.Policy, fault.Upstream:
	}
	return false
}

func partOf(f *fault.Fault) part {
	switch f.Kind {
	case fault.Routing, fault.DNS, fault.Policy, fault.Upstream:
		return part{kind: f.Kind}
	case fault.Client:
		return part{f.Kind, f.Tag, f.ClientEmail}
	case fault.Inbound, fault.Outbound, fault.MTProto:
	}
	return part{kind: f.Kind, tag: f.Tag}
}

// refuse takes back the parts that the faults in err name. It reports whether that changes
// the proposal: where no part of the document is at fault, another try is no use.
func (p *proposal) refuse(err error) (changed bool) {
	for _, f := range fault.All(err) {
		if !p.names(f) || p.parts[partOf(f)] {
			continue
		}
		p.parts[partOf(f)] = true
		p.refused = append(p.refused, f)
		changed = true
	}
	return changed
}

// names reports whether the document has the part that f names.
func (p *proposal) names(f *fault.Fault) bool {
	switch f.Kind {
	case fault.Inbound:
		_, has := p.wanted.xray.Inbounds[f.Tag]
		return has
	case fault.Client:
		return p.wanted.xray.Inbounds[f.Tag].Clients.Find(f.ClientEmail) != nil
	case fault.Outbound:
		return p.wanted.xray.OutboundIndex(f.Tag) >= 0
	case fault.MTProto:
		return slices.ContainsFunc(p.wanted.mtproto.Inbounds, func(in service.Inbound) bool { return in.Tag == f.Tag })
	case fault.Routing, fault.DNS, fault.Policy:
		return true
	case fault.Upstream:
	}
	return false
}

// desired returns what the engines are asked to run.
func (p *proposal) desired() (desired, error) {
	d := p.wanted
	if len(p.parts) == 0 && !d.mtprotoRefused {
		return d, nil
	}
	if err := p.keepInbounds(&d.xray); err != nil {
		return d, err
	}
	d.xray.Outbounds = slices.Clone(d.xray.Outbounds)
	for i, out := range d.xray.Outbounds {
		if p.parts[part{kind: fault.Outbound, tag: out.Tag}] {
			d.xray.Outbounds[i] = p.runningOutbound(out.Tag)
		}
	}
	if p.parts[part{kind: fault.DNS}] {
		d.xray.DNS = p.running.xray.DNS
	}
	if p.parts[part{kind: fault.Policy}] {
		d.xray.Policy = p.running.xray.Policy
	}
	if p.parts[part{kind: fault.Routing}] {
		d.routing, d.xray.Base = p.running.routing, p.running.xray.Base
		maps.DeleteFunc(d.xray.Inbounds, func(tag string, _ state.Inbound) bool {
			_, runs := p.running.xray.Inbounds[tag]
			return !runs
		})
	}
	// The rules name the clients that are left, under their names inside the worker.
	with, err := parse.WithUsers(d.xray, d.routing)
	if err != nil {
		return d, err
	}
	d.xray = with
	p.keepMTProto(&d.mtproto)
	return d, nil
}

// keepInbounds puts the running form in the place of each refused inbound, and leaves
// refused clients out.
func (p *proposal) keepInbounds(s *state.State) (err error) {
	s.Inbounds = maps.Clone(s.Inbounds)
	if s.Inbounds == nil {
		s.Inbounds = map[string]state.Inbound{}
	}
	for refused := range p.parts {
		switch refused.kind {
		case fault.Client:
			if in, has := s.Inbounds[refused.tag]; has && !p.parts[part{kind: fault.Inbound, tag: refused.tag}] {
				s.Inbounds[refused.tag], err = in.Without(func(c *state.Client) bool { return c.Email == refused.email })
			}
		case fault.Inbound:
			if in, runs := p.running.xray.Inbounds[refused.tag]; runs {
				s.Inbounds[refused.tag], err = in.Without(removedIn(in, p.wanted))
			} else {
				delete(s.Inbounds, refused.tag)
			}
		case fault.Outbound, fault.Routing, fault.DNS, fault.Policy, fault.MTProto, fault.Upstream:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *proposal) runningOutbound(tag string) state.Outbound {
	if i := p.running.xray.OutboundIndex(tag); i >= 0 {
		return p.running.xray.Outbounds[i]
	}
	return parse.Blocking(tag)
}

// keepMTProto puts the running form in the place of each MTProto inbound that is refused, and
// of what they share.
func (p *proposal) keepMTProto(s *service.Service) {
	old := desired{mtproto: service.Service{Inbounds: slices.Clone(p.running.mtproto.Inbounds)}}
	for i := range old.mtproto.Inbounds {
		old.mtproto.Inbounds[i].Clients = slices.Clone(old.mtproto.Inbounds[i].Clients)
	}
	old.removeMTProtoClients(p.wanted)
	if p.wanted.mtprotoRefused {
		s.Inbounds, s.Upstreams, s.Advanced = old.mtproto.Inbounds, p.running.mtproto.Upstreams, p.running.mtproto.Advanced
		return
	}
	refused := func(in service.Inbound) bool { return p.parts[part{kind: fault.MTProto, tag: in.Tag}] }
	all := slices.DeleteFunc(slices.Clone(s.Inbounds), refused)
	if p.parts[part{kind: fault.Upstream}] {
		s.Upstreams = p.running.mtproto.Upstreams
		all = slices.DeleteFunc(all, func(in service.Inbound) bool {
			return !slices.ContainsFunc(old.mtproto.Inbounds, func(running service.Inbound) bool { return running.Tag == in.Tag })
		})
	}
	for _, in := range old.mtproto.Inbounds {
		if refused(in) {
			if in.Options == nil { // what telemt refuses can be among the new options
				in.Options = &service.Options{Upstreams: p.running.mtproto.Upstreams, Advanced: p.running.mtproto.Advanced}
			}
			all = append(all, in)
		}
	}
	s.Inbounds = all
}
