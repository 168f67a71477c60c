package adminapi

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

const defaultCodeLife = 24 * time.Hour

func (s *Server) nodeAdd(ctx context.Context, args NodeArgs) (NodeAdded, error) {
	if err := checkName("node", args.Node); err != nil {
		return NodeAdded{}, err
	}
	life, err := codeLife(args)
	if err != nil {
		return NodeAdded{}, err
	}
	node, code, err := s.store.AddNode(ctx, args.Node, args.Region, life)
	return s.nodeAdded(node, code), err
}

func (s *Server) nodeCode(ctx context.Context, args NodeArgs) (NodeAdded, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return NodeAdded{}, err
	}
	life, err := codeLife(args)
	if err != nil {
		return NodeAdded{}, err
	}
	code, err := s.store.NewCode(ctx, node.ID, life)
	return s.nodeAdded(node, code), err
}

func codeLife(args NodeArgs) (time.Duration, error) {
	if args.CodeLife < 0 {
		return 0, badInput{fmt.Errorf("a code that expires in %s is good for nothing", args.CodeLife)}
	}
	return cmp.Or(args.CodeLife, defaultCodeLife), nil
}

func (s *Server) nodeAdded(node corestore.Node, code string) NodeAdded {
	token := wire.JoinToken{CoreURL: s.publicURL, Code: secret.Text(code), Pin: s.pin}
	return NodeAdded{ID: node.ID, Name: node.Name, Code: code, JoinToken: token.Encode()}
}

func (s *Server) nodeList(ctx context.Context, _ struct{}) ([]corestore.Node, error) {
	return s.store.Nodes(ctx)
}

func (s *Server) nodeShow(ctx context.Context, args NodeArgs) (NodeDetails, error) {
	var details NodeDetails
	var err error
	if details.Node, err = s.store.Node(ctx, args.Node); err != nil {
		return details, err
	}
	if details.Protocols, err = s.store.Protocols(ctx, details.ID); err != nil {
		return details, err
	}
	if details.Outbounds, err = s.store.Outbounds(ctx, details.ID); err != nil {
		return details, err
	}
	if details.Health, err = s.store.Status(ctx, details.ID); err != nil {
		return details, err
	}
	var misfits []nodeconfig.Misfit
	for _, p := range details.Protocols {
		misfits = append(misfits, nodeconfig.ProtocolMisfits(details.Node, p)...)
	}
	for _, o := range details.Outbounds {
		misfits = append(misfits, nodeconfig.OutboundMisfits(details.Node, o)...)
	}
	details.Misfits = sentences(slices.DeleteFunc(misfits, func(m nodeconfig.Misfit) bool { return !m.Refused }))
	details.Protocols, details.Outbounds = shown(details.Protocols, details.Node), withoutObjects(details.Outbounds)
	details.Refused, err = s.store.Refusals(ctx, details.ID)
	return details, err
}

func (s *Server) nodeRemove(ctx context.Context, args NodeArgs) (corestore.Node, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return node, err
	}
	if err := s.store.RemoveNode(ctx, node.ID); err != nil {
		return node, err
	}
	s.hub.Changed(node.ID)
	return node, nil
}

func (s *Server) nodeMTProto(ctx context.Context, args MTProtoArgs) (corestore.Node, changed, error) {
	if err := nodeconfig.CheckMTProtoOptions(args.Options); err != nil {
		return corestore.Node{}, changed{}, badInput{err}
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return node, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.check(ctx, node.ID, func(r *rows) { r.Node.MTProto = args.Options })
	if err != nil {
		return node, changed{}, err
	}
	err = s.store.SetMTProto(ctx, node.ID, args.Options)
	return node, changed{nodes: []int64{node.ID}, part: Part{Kind: "mtproto"}, warnings: warnings}, err
}

// nodeRotate offers the node another auth key. A held heartbeat is answered, so that the node
// gets it at once.
func (s *Server) nodeRotate(ctx context.Context, args NodeArgs) (corestore.Node, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return node, err
	}
	if node.RegisteredAt == nil {
		return node, badInput{fmt.Errorf("node %s is not registered, so it has no key yet", node.Name)}
	}
	if err := s.store.RotateKey(ctx, node.ID); err != nil {
		return node, err
	}
	s.hub.Changed(node.ID)
	return s.store.Node(ctx, args.Node)
}

func (s *Server) announce(ctx context.Context, args AnnounceArgs) (wire.CoreIdentity, error) {
	if args.URL != "" {
		u, err := url.Parse(args.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return wire.CoreIdentity{}, badInput{fmt.Errorf("%q is no address: want https://HOST[:PORT][/PATH]", args.URL)}
		}
	}
	if err := s.store.AnnounceURL(ctx, args.URL); err != nil {
		return wire.CoreIdentity{}, err
	}
	nodes, err := s.store.Nodes(ctx)
	for _, n := range nodes {
		s.hub.Changed(n.ID)
	}
	return s.store.Identity(), err
}

func (s *Server) nodeErrors(ctx context.Context, args ErrorArgs) ([]corestore.NodeError, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.store.NodeErrors(ctx, id, limit(args.LimitArgs))
}

// nodeID returns the id of the named node; 0, which means all nodes, for an empty name.
func (s *Server) nodeID(ctx context.Context, nameOrID string) (int64, error) {
	if nameOrID == "" {
		return 0, nil
	}
	node, err := s.store.Node(ctx, nameOrID)
	return node.ID, err
}
