package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) outboundAdd(ctx context.Context, args OutboundArgs) (OutboundAdded, changed, error) {
	out, err := readOutbound(args)
	if err != nil {
		return OutboundAdded{}, changed{}, err
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return OutboundAdded{}, changed{}, err
	}
	out.NodeID = node.ID
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.check(ctx, node.ID, func(r *rows) {
		r.Outbounds = slices.DeleteFunc(r.Outbounds, func(o corestore.Outbound) bool { return o.Tag == out.Tag && len(o.Config) == 0 })
		i := slices.IndexFunc(r.Outbounds, func(o corestore.Outbound) bool { return o.Tag == out.Tag })
		if i < 0 {
			r.Outbounds = append(r.Outbounds, out)
		} else {
			r.Outbounds[i] = out
		}
	})
	if err != nil {
		return OutboundAdded{}, changed{}, err
	}
	out, err = s.store.PutOutbound(ctx, out)
	added := OutboundAdded{out, sentences(nodeconfig.OutboundMisfits(node, out))}
	added.Config = nil
	return added, changed{nodes: []int64{node.ID}, part: Part{"outbound", out.Tag}, warnings: warnings}, err
}

// readOutbound reads an outbound's object and gives it its tag.
func readOutbound(args OutboundArgs) (corestore.Outbound, error) {
	var object map[string]json.RawMessage // not any: numbers keep their digits
	if err := json.Unmarshal(args.Config, &object); err != nil {
		return corestore.Outbound{}, badInput{fmt.Errorf("read the outbound: %w", err)}
	}
	if object == nil {
		return corestore.Outbound{}, badInput{errors.New("read the outbound: it is null, want an object")}
	}
	tag := args.Tag
	if tag == "" {
		_ = json.Unmarshal(object["tag"], &tag) // a tag that is not a string counts as missing
	}
	switch {
	case tag == "":
		return corestore.Outbound{}, badInput{errors.New("the outbound has no tag; give one with --tag")}
	case len(tag) > maxTag:
		return corestore.Outbound{}, badInput{fmt.Errorf("the tag of the outbound has %d bytes, want at most %d", len(tag), maxTag)}
	}
	var err error
	if object["tag"], err = json.Marshal(tag); err != nil {
		return corestore.Outbound{}, err
	}
	config, err := json.Marshal(object)
	return corestore.Outbound{Tag: tag, Config: config}, err
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

func (s *Server) outboundRemove(ctx context.Context, args OutboundArgs) (Removed, changed, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return Removed{}, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.check(ctx, node.ID, func(r *rows) { // another outbound may go through it
		r.Outbounds = slices.DeleteFunc(r.Outbounds, func(o corestore.Outbound) bool { return o.Tag == args.Tag })
	})
	if err != nil {
		return Removed{}, changed{}, err
	}
	err = s.store.RemoveOutbound(ctx, node.ID, args.Tag)
	if errors.Is(err, corestore.ErrLastOutbound) {
		err = badInput{err}
	}
	return Removed{Removed: args.Tag}, changed{nodes: []int64{node.ID}, warnings: warnings}, err
}
