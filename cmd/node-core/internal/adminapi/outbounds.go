package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) outboundAdd(ctx context.Context, args OutboundArgs) (OutboundAdded, error) {
	var object map[string]json.RawMessage // not any: numbers keep their digits
	if err := json.Unmarshal(args.Config, &object); err != nil {
		return OutboundAdded{}, badInput{fmt.Errorf("read the outbound: %w", err)}
	}
	if object == nil {
		return OutboundAdded{}, badInput{errors.New("read the outbound: it is null, want an object")}
	}
	tag := args.Tag
	if tag == "" {
		_ = json.Unmarshal(object["tag"], &tag) // a tag that is not a string counts as missing
	}
	switch {
	case tag == "":
		return OutboundAdded{}, badInput{errors.New("the outbound has no tag; give one with --tag")}
	case len(tag) > maxTag:
		return OutboundAdded{}, badInput{fmt.Errorf("the tag of the outbound has %d bytes, want at most %d", len(tag), maxTag)}
	}
	var err error
	if object["tag"], err = json.Marshal(tag); err != nil {
		return OutboundAdded{}, err
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return OutboundAdded{}, err
	}
	config, err := json.Marshal(object)
	if err != nil {
		return OutboundAdded{}, err
	}
	out, err := s.store.PutOutbound(ctx, corestore.Outbound{NodeID: node.ID, Tag: tag, Config: config})
	if err != nil {
		return OutboundAdded{}, err
	}
	s.hub.Changed(node.ID)
	added := OutboundAdded{out, sentences(nodeconfig.OutboundMisfits(node, out))}
	added.Config = nil
	return added, nil
}

func (s *Server) outboundList(ctx context.Context, args NodeArgs) ([]corestore.Outbound, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.outbounds(ctx, id)
}

// outbounds returns outbounds without their objects, which may contain passwords.
func (s *Server) outbounds(ctx context.Context, nodeID int64) ([]corestore.Outbound, error) {
	outbounds, err := s.store.Outbounds(ctx, nodeID)
	return withoutObjects(outbounds), err
}

func withoutObjects(outbounds []corestore.Outbound) []corestore.Outbound {
	for i := range outbounds {
		outbounds[i].Configured = len(outbounds[i].Config) > 0
		outbounds[i].Config = nil
	}
	return outbounds
}

func (s *Server) outboundRemove(ctx context.Context, args OutboundArgs) (Removed, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return Removed{}, err
	}
	err = s.store.RemoveOutbound(ctx, node.ID, args.Tag)
	if errors.Is(err, corestore.ErrLastOutbound) {
		return Removed{}, badInput{err}
	} else if err != nil {
		return Removed{}, err
	}
	s.hub.Changed(node.ID)
	return Removed{Removed: args.Tag}, nil
}
