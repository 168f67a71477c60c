package adminapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

const (
	defaultCodeLife = 24 * time.Hour
	defaultLimit    = 1000
	maxName         = 100
)

func named(kind, name string) error {
	if strings.TrimSpace(name) == "" || len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) {
		return badInput{fmt.Errorf("a %s needs a name, of at most %d characters and no control characters", kind, maxName)}
	}
	if _, err := strconv.Atoi(name); err == nil {
		return badInput{fmt.Errorf("%q can't name a %s: it would be taken for an id", name, kind)}
	}
	return nil
}

func (s *Server) nodeAdd(ctx context.Context, args NodeArgs) (NodeAdded, error) {
	if err := named("node", args.Node); err != nil {
		return NodeAdded{}, err
	}
	life, err := codeLife(args)
	if err != nil {
		return NodeAdded{}, err
	}
	node, code, err := s.store.AddNode(ctx, args.Node, args.Region, life)
	return s.added(node, code), err
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
	return s.added(node, code), err
}

func codeLife(args NodeArgs) (time.Duration, error) {
	if args.CodeLife < 0 {
		return 0, badInput{fmt.Errorf("a code that expires in %s is good for nothing", args.CodeLife)}
	}
	return cmp.Or(args.CodeLife, defaultCodeLife), nil
}

func (s *Server) added(node corestore.Node, code string) NodeAdded {
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
	if details.Protocols, err = s.protocols(ctx, details.ID); err != nil {
		return details, err
	}
	details.Outbounds, err = s.outbounds(ctx, details.ID)
	return details, err
}

// outbounds leaves the objects out: they may have passwords.
func (s *Server) outbounds(ctx context.Context, nodeID int64) ([]corestore.Outbound, error) {
	outbounds, err := s.store.Outbounds(ctx, nodeID)
	for i := range outbounds {
		outbounds[i].Configured = len(outbounds[i].Config) > 0
		outbounds[i].Config = nil
	}
	return outbounds, err
}

// protocols leaves the objects out: they have private keys.
func (s *Server) protocols(ctx context.Context, nodeID int64) ([]corestore.Protocol, error) {
	protocols, err := s.store.Protocols(ctx, nodeID)
	for i := range protocols {
		protocols[i].Config = nil
	}
	return protocols, err
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

func (s *Server) nodeMTProto(ctx context.Context, args MTProtoArgs) (corestore.Node, error) {
	if _, err := nodeconfig.ParseMTProtoOptions(args.Options); err != nil {
		return corestore.Node{}, badInput{err}
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return node, err
	}
	if err := s.store.SetMTProto(ctx, node.ID, args.Options); err != nil {
		return node, err
	}
	s.hub.Changed(node.ID)
	return node, nil
}

func (s *Server) protocolAdd(ctx context.Context, args ProtocolArgs) (corestore.Protocol, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return corestore.Protocol{}, err
	}
	p := corestore.Protocol{NodeID: node.ID, Tag: args.Tag, Protocol: args.Wish.Protocol, Listen: args.Wish.Listen, Port: args.Wish.Port}
	if args.Inbound != nil {
		err = nodeconfig.FromNative(args.Inbound, args.Wish, &p)
	} else {
		err = nodeconfig.FromWish(args.Wish, &p)
	}
	if err != nil {
		return p, badInput{err}
	}
	if p.Tag != "" {
		if err := named("protocol", p.Tag); err != nil {
			return p, err
		}
	}
	if err := nodeconfig.Check(node, p); err != nil {
		return p, badInput{err} // or the node could have no configuration, and nobody his links
	}
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

// nodeID is 0, which means all nodes, where no node is named.
func (s *Server) nodeID(ctx context.Context, nameOrID string) (int64, error) {
	if nameOrID == "" {
		return 0, nil
	}
	node, err := s.store.Node(ctx, nameOrID)
	return node.ID, err
}

func (s *Server) protocolList(ctx context.Context, args NodeArgs) ([]corestore.Protocol, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.protocols(ctx, id)
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

func (s *Server) outboundAdd(ctx context.Context, args OutboundArgs) (corestore.Outbound, error) {
	var object map[string]any
	if err := json.Unmarshal(args.Config, &object); err != nil {
		return corestore.Outbound{}, badInput{fmt.Errorf("read the outbound: %w", err)}
	}
	if object == nil {
		return corestore.Outbound{}, badInput{errors.New("read the outbound: it is null, want an object")}
	}
	if args.Tag != "" {
		object["tag"] = args.Tag
	}
	tag, _ := object["tag"].(string)
	if tag == "" {
		return corestore.Outbound{}, badInput{errors.New("the outbound has no tag; give one with --tag")}
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return corestore.Outbound{}, err
	}
	config, err := json.Marshal(object)
	if err != nil {
		return corestore.Outbound{}, err
	}
	out, err := s.store.PutOutbound(ctx, corestore.Outbound{NodeID: node.ID, Tag: tag, Config: config})
	if err != nil {
		return out, err
	}
	s.hub.Changed(node.ID)
	out.Config = nil
	return out, nil
}

func (s *Server) outboundList(ctx context.Context, args NodeArgs) ([]corestore.Outbound, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.outbounds(ctx, id)
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

func (s *Server) userAdd(ctx context.Context, args UserArgs) (corestore.User, error) {
	if err := named("user", args.User); err != nil {
		return corestore.User{}, err
	}
	return s.store.AddUser(ctx, args.User)
}

func (s *Server) userList(ctx context.Context, _ struct{}) ([]corestore.User, error) {
	return s.store.Users(ctx)
}

func (s *Server) subscriptionAdd(ctx context.Context, args UserArgs) (SubscriptionAdded, error) {
	var added SubscriptionAdded
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return added, err
	}
	sub, nodes, err := s.store.AddSubscription(ctx, user.ID)
	if err != nil {
		return added, err
	}
	s.hub.Changed(nodes...)
	return s.withLinks(ctx, sub)
}

// withLinks has the links for each inbound of each node that has registered. An inbound
// without any is told, and costs the others nothing.
func (s *Server) withLinks(ctx context.Context, sub corestore.Subscription) (SubscriptionAdded, error) {
	shown := SubscriptionAdded{Subscription: sub, Links: []string{}}
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return shown, err
	}
	for _, node := range nodes {
		protocols, err := s.store.Protocols(ctx, node.ID)
		if err != nil {
			return shown, err
		}
		for _, p := range protocols {
			links, err := nodeconfig.Links(node, p, sub)
			switch {
			case err != nil:
				shown.Without = append(shown.Without, fmt.Sprintf("%s of node %s: %v", p.Tag, node.Name, err))
			case len(links) == 0 && node.RegisteredAt != nil:
				shown.Without = append(shown.Without, fmt.Sprintf("%s of node %s (%s): clients are set up by hand", p.Tag, node.Name, p.Protocol))
			}
			shown.Links = append(shown.Links, links...)
		}
	}
	return shown, nil
}

func (s *Server) subscriptionShow(ctx context.Context, args IDArgs) (SubscriptionAdded, error) {
	sub, err := s.store.Subscription(ctx, args.ID)
	if err != nil {
		return SubscriptionAdded{}, err
	}
	return s.withLinks(ctx, sub)
}

func (s *Server) subscriptionList(ctx context.Context, _ struct{}) ([]corestore.Subscription, error) {
	return s.store.Subscriptions(ctx)
}

func (s *Server) subscriptionDisable(ctx context.Context, args IDArgs) (corestore.Subscription, error) {
	return s.enable(ctx, args, false)
}

func (s *Server) subscriptionEnable(ctx context.Context, args IDArgs) (corestore.Subscription, error) {
	return s.enable(ctx, args, true)
}

func (s *Server) enable(ctx context.Context, args IDArgs, enabled bool) (corestore.Subscription, error) {
	sub, nodes, err := s.store.EnableSubscription(ctx, args.ID, enabled)
	if err != nil {
		return sub, err
	}
	s.hub.Changed(nodes...)
	return sub, nil
}

func (s *Server) subscriptionRemove(ctx context.Context, args IDArgs) (Removed, error) {
	nodes, err := s.store.RemoveSubscription(ctx, args.ID)
	if err != nil {
		return Removed{}, err
	}
	s.hub.Changed(nodes...)
	return Removed{Removed: args.ID}, nil
}

func (s *Server) userRemove(ctx context.Context, args UserArgs) (Removed, error) {
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return Removed{}, err
	}
	nodes, err := s.store.RemoveUser(ctx, user.ID)
	if err != nil {
		return Removed{}, err
	}
	s.hub.Changed(nodes...)
	return Removed{Removed: user.Name}, nil
}

func (s *Server) errorsOf(ctx context.Context, args ErrorArgs) ([]corestore.NodeError, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.store.NodeErrors(ctx, id, limit(args.LimitArgs))
}

func (s *Server) usage(ctx context.Context, args LimitArgs) ([]corestore.UsageRow, error) {
	return s.store.Usage(ctx, limit(args))
}

func (s *Server) events(ctx context.Context, args LimitArgs) ([]corestore.EventRow, error) {
	return s.store.Events(ctx, limit(args))
}

func limit(args LimitArgs) int {
	if args.Limit <= 0 {
		return defaultLimit
	}
	return args.Limit
}
