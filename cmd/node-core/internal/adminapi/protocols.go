package adminapi

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) protocolAdd(ctx context.Context, args ProtocolArgs) (corestore.Protocol, changed, error) {
	p, warnings, err := s.addProtocol(ctx, args)
	p.Config = nil // it contains private keys
	kind := "inbound"
	if p.Protocol == "mtproto" {
		kind = "mtproto"
	}
	return p, changed{nodes: []int64{p.NodeID}, part: Part{kind, p.Tag}, warnings: warnings}, err
}

func (s *Server) addProtocol(ctx context.Context, args ProtocolArgs) (_ corestore.Protocol, warnings []string, _ error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return corestore.Protocol{}, nil, err
	}
	p := corestore.Protocol{NodeID: node.ID, Tag: args.Tag, Protocol: args.Flags.Protocol, Listen: args.Flags.Listen, Port: args.Flags.Port}
	if args.Inbound != nil {
		err = nodeconfig.FromNative(args.Inbound, args.Flags, &p)
	} else {
		err = nodeconfig.FromFlags(args.Flags, &p)
	}
	if err != nil {
		return p, nil, badInput{err}
	}
	if p.Tag != "" {
		if err := checkName("protocol", p.Tag); err != nil {
			return p, nil, err
		}
	}
	if err := nodeconfig.Check(node, p); err != nil {
		return p, nil, badInput{err} // such an inbound in the database would break the whole configuration and all links
	}
	if _, err := nodeconfig.Bindings(p); err != nil {
		return p, nil, badInput{err}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.freePortLocked(ctx, p); err != nil {
		return p, nil, err
	}
	if warnings, err = s.checkProtocol(ctx, p); err != nil {
		return p, nil, err
	}
	p, err = s.store.AddProtocol(ctx, p)
	return p, warnings, err
}

// checkProtocol checks a new inbound with the node's own rules.
func (s *Server) checkProtocol(ctx context.Context, p corestore.Protocol) (warnings []string, err error) {
	return s.check(ctx, p.NodeID, func(r *rows) {
		for _, other := range r.protocols {
			p.ID = max(p.ID, other.ID)
			if other.Tag == p.Tag {
				return // the store refuses it
			}
		}
		p.ID++ // the store gives it an id of its own; the tag is then as near as can be known
		if p.Tag == "" {
			p.Tag = fmt.Sprintf("%s-%d", p.Protocol, p.ID)
		}
		r.protocols = append(r.protocols, p)
	})
}

// freePortLocked returns an error if another inbound of the node listens on the same address
// and port. The caller holds changing until the inbound is stored.
func (s *Server) freePortLocked(ctx context.Context, p corestore.Protocol) error {
	others, err := s.store.Protocols(ctx, p.NodeID)
	if err != nil {
		return err
	}
	for _, other := range others {
		if nodeconfig.Collide(p, other) {
			return badInput{fmt.Errorf("protocol %s of this node already listens on %s port %d", other.Tag, cmp.Or(other.Listen, "all addresses,"), other.Port)}
		}
	}
	return nil
}

func (s *Server) protocolList(ctx context.Context, args NodeArgs) ([]corestore.Protocol, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.protocols(ctx, id)
}

// protocols returns inbounds without their objects, which contain private keys.
func (s *Server) protocols(ctx context.Context, nodeID int64) ([]corestore.Protocol, error) {
	protocols, err := s.store.Protocols(ctx, nodeID)
	for i := range protocols {
		protocols[i].Config = nil
	}
	return protocols, err
}

func (s *Server) protocolRemove(ctx context.Context, args IDArgs) (Removed, changed, error) {
	id, err := strconv.ParseInt(args.ID, 10, 64)
	if err != nil {
		return Removed{}, changed{}, badInput{fmt.Errorf("%q is not an id; 'node-core protocol list' shows the ids", args.ID)}
	}
	node, err := s.store.RemoveProtocol(ctx, id)
	return Removed{Removed: args.ID}, changed{nodes: []int64{node}}, err
}
