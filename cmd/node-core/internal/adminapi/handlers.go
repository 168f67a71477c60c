package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire"
)

const (
	defaultCodeLife = 24 * time.Hour
	defaultLimit    = 1000
)

func named(kind, name string) error {
	if strings.TrimSpace(name) == "" {
		return badInput{fmt.Errorf("a %s needs a name", kind)}
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
	node, code, err := s.store.AddNode(ctx, args.Node, args.Region, codeLife(args))
	return s.added(node, code), err
}

func (s *Server) nodeCode(ctx context.Context, args NodeArgs) (NodeAdded, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return NodeAdded{}, err
	}
	code, err := s.store.NewCode(ctx, node.ID, codeLife(args))
	return s.added(node, code), err
}

func codeLife(args NodeArgs) time.Duration {
	if args.CodeLife <= 0 {
		return defaultCodeLife
	}
	return args.CodeLife
}

func (s *Server) added(node corestore.Node, code string) NodeAdded {
	token := wire.JoinToken{CoreURL: s.publicURL, Code: code, Pin: s.pin}
	return NodeAdded{ID: node.ID, Name: node.Name, Code: code, JoinToken: token.String()}
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
	details.Outbounds, err = s.store.Outbounds(ctx, details.ID)
	return details, err
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
	err = s.store.RemoveNode(ctx, node.ID)
	s.hub.Changed(node.ID)
	return node, err
}

func (s *Server) protocolAdd(ctx context.Context, args ProtocolArgs) (corestore.Protocol, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return corestore.Protocol{}, err
	}
	p := corestore.Protocol{NodeID: node.ID, Tag: args.Tag, Protocol: args.Wish.Protocol, Listen: args.Wish.Listen, Port: args.Wish.Port}
	if args.Inbound != nil {
		err = nodeconfig.FromNative(args.Inbound, &p)
		p.Link = corestore.LinkHints{SNI: args.Wish.SNI, Flow: args.Wish.Flow}
	} else {
		err = nodeconfig.FromWish(args.Wish, &p)
	}
	if err != nil {
		return p, badInput{err}
	}
	p, err = s.store.AddProtocol(ctx, p, func(*corestore.Protocol) error { return nil })
	s.hub.Changed(node.ID)
	p.Config = nil
	return p, err
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
	s.hub.Changed(node)
	return Removed{Removed: args.ID}, err
}

func (s *Server) outboundAdd(ctx context.Context, args OutboundArgs) (corestore.Outbound, error) {
	var object map[string]any
	if err := json.Unmarshal(args.Config, &object); err != nil {
		return corestore.Outbound{}, badInput{fmt.Errorf("read the outbound: %w", err)}
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
	s.hub.Changed(node.ID)
	return out, err
}

func (s *Server) outboundList(ctx context.Context, args NodeArgs) ([]corestore.Outbound, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	return s.store.Outbounds(ctx, id)
}

func (s *Server) outboundRemove(ctx context.Context, args OutboundArgs) (Removed, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return Removed{}, err
	}
	err = s.store.RemoveOutbound(ctx, node.ID, args.Tag)
	s.hub.Changed(node.ID)
	return Removed{Removed: args.Tag}, err
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
	added := SubscriptionAdded{Links: []string{}}
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return added, err
	}
	sub, nodes, err := s.store.AddSubscription(ctx, user.ID)
	if err != nil {
		return added, err
	}
	added.Subscription = sub
	s.hub.Changed(nodes...)
	added.Links, err = s.links(ctx, sub)
	return added, err
}

// links has one for each inbound of each node that has registered.
func (s *Server) links(ctx context.Context, sub corestore.Subscription) ([]string, error) {
	links := []string{}
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return links, err
	}
	for _, node := range nodes {
		protocols, err := s.store.Protocols(ctx, node.ID)
		if err != nil {
			return links, err
		}
		for _, p := range protocols {
			link, err := nodeconfig.Link(node, p, sub)
			if err != nil {
				return links, err
			}
			if link != "" {
				links = append(links, link)
			}
		}
	}
	return links, nil
}

func (s *Server) subscriptionList(ctx context.Context, _ struct{}) ([]corestore.Subscription, error) {
	return s.store.Subscriptions(ctx)
}

func (s *Server) subscriptionDisable(ctx context.Context, args IDArgs) (corestore.Subscription, error) {
	sub, nodes, err := s.store.DisableSubscription(ctx, args.ID)
	s.hub.Changed(nodes...)
	return sub, err
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
