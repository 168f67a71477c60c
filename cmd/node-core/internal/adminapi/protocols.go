package adminapi

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) protocolAdd(ctx context.Context, args ProtocolArgs) (corestore.Protocol, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return corestore.Protocol{}, err
	}
	p := corestore.Protocol{NodeID: node.ID, Tag: args.Tag, Protocol: args.Flags.Protocol, Listen: args.Flags.Listen, Port: args.Flags.Port}
	if args.Inbound != nil {
		err = nodeconfig.FromNative(args.Inbound, args.Flags, &p)
	} else {
		err = nodeconfig.FromFlags(args.Flags, &p)
	}
	if err != nil {
		return p, badInput{err}
	}
	if p.Tag != "" {
		if err := checkName("protocol", p.Tag); err != nil {
			return p, err
		}
	}
	if err := nodeconfig.Check(node, p); err != nil {
		return p, badInput{err} // or the node could have no configuration, and nobody his links
	}
	s.addingProtocol.Lock()
	defer s.addingProtocol.Unlock()
	if err := s.freePort(ctx, p); err != nil {
		return p, err
	}
	if p, err = s.store.AddProtocol(ctx, p); err != nil {
		return p, err
	}
	s.hub.Changed(node.ID)
	p.Config = nil
	return p, nil
}

// freePort refuses what would be the second on an address and port of a node.
func (s *Server) freePort(ctx context.Context, p corestore.Protocol) error {
	others, err := s.store.Protocols(ctx, p.NodeID)
	if err != nil {
		return err
	}
	for _, other := range others {
		if nodeconfig.Collide(p, other) {
			return badInput{fmt.Errorf("protocol %s of this node listens on %s port %d already", other.Tag, cmp.Or(other.Listen, "all addresses,"), other.Port)}
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

// protocols leaves the objects out: they have private keys.
func (s *Server) protocols(ctx context.Context, nodeID int64) ([]corestore.Protocol, error) {
	protocols, err := s.store.Protocols(ctx, nodeID)
	for i := range protocols {
		protocols[i].Config = nil
	}
	return protocols, err
}

func (s *Server) protocolRemove(ctx context.Context, args IDArgs) (Removed, error) {
	id, err := strconv.ParseInt(args.ID, 10, 64)
	if err != nil {
		return Removed{}, badInput{fmt.Errorf("%q is no id; 'node-core protocol list' tells them", args.ID)}
	}
	node, err := s.store.RemoveProtocol(ctx, id)
	if err != nil {
		return Removed{}, err
	}
	s.hub.Changed(node)
	return Removed{Removed: args.ID}, nil
}
