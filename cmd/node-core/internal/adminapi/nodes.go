package adminapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

const defaultCodeLife = 24 * time.Hour

// NodeIn names a node in a path.
type NodeIn struct {
	Node string `path:"node" doc:"Name or id of the node."`
}

func registerNodes(a api) {
	s := a.server
	read(a, operation{id: "node-list", method: http.MethodGet, path: "/nodes", noun: "nodes", summary: "List the nodes", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			PageIn
			Search string `query:"search" maxLength:"100" doc:"A part of the name."`
			Sort   string `query:"sort" enum:"id,-id,name,-name" default:"id"`
		},
		) (coreapi.Page[corestore.Node], error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return coreapi.Page[corestore.Node]{}, err
			}
			nodes, next, err := s.store.ListNodes(ctx, in.Search, list)
			for i := range nodes {
				hideInNode(ctx, &nodes[i])
			}
			return pageOf(nodes, next, err)
		})
	read(a, operation{id: "node-show", method: http.MethodGet, path: "/nodes/{node}", noun: "nodes", summary: "Show a node with its inbounds, outbounds and what it said last", role: coreapi.ReadOnly, etag: corestore.KindNode},
		func(ctx context.Context, in *NodeIn) (coreapi.NodeDetails, error) {
			return s.nodeShow(ctx, nodeArgs{Node: in.Node})
		})
	read(a, operation{id: "node-errors", method: http.MethodGet, path: "/node-errors", noun: "nodes", summary: "Show the errors that a node, or all nodes, reported; the newest is last", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			LimitIn
			Node string `query:"node" doc:"Name or id of a node; all nodes without it."`
		},
		) ([]corestore.NodeError, error) {
			return s.nodeErrors(ctx, errorArgs{Node: in.Node, limitArgs: limitArgs{in.Limit}})
		})
	read(a, operation{id: "node-add", method: http.MethodPost, path: "/nodes", noun: "nodes", summary: "Add a node; the join token is shown only this time", role: coreapi.Operator, status: http.StatusCreated, secret: true},
		func(ctx context.Context, in *struct{ Body coreapi.NewNode }) (coreapi.NodeAdded, error) {
			life, err := codeLife(in.Body.ExpiresIn)
			if err != nil {
				return coreapi.NodeAdded{}, err
			}
			return s.nodeAdd(ctx, nodeArgs{Node: in.Body.Name, Region: in.Body.Region, CodeLife: life})
		})
	read(a, operation{id: "node-code", method: http.MethodPost, path: "/nodes/{node}/code", noun: "nodes", summary: "Make another join token, to register a node again", role: coreapi.Operator, status: http.StatusCreated, secret: true},
		func(ctx context.Context, in *struct {
			NodeIn
			Body coreapi.NewCode
		},
		) (coreapi.NodeAdded, error) {
			life, err := codeLife(in.Body.ExpiresIn)
			if err != nil {
				return coreapi.NodeAdded{}, err
			}
			return s.nodeCode(ctx, nodeArgs{Node: in.Node, CodeLife: life})
		})
	read(a, operation{id: "node-rotate", method: http.MethodPost, path: "/nodes/{node}/rotate", noun: "nodes", summary: "Offer a node another auth key", role: coreapi.Operator, etag: corestore.KindNode},
		func(ctx context.Context, in *NodeIn) (corestore.Node, error) {
			return s.nodeRotate(ctx, nodeArgs{Node: in.Node})
		})
	read(a, operation{id: "node-remove", method: http.MethodDelete, path: "/nodes/{node}", noun: "nodes", summary: "Remove a node: its key is not accepted any more", role: coreapi.Operator, etag: corestore.KindNode},
		func(ctx context.Context, in *NodeIn) (corestore.Node, error) {
			return s.nodeRemove(ctx, nodeArgs{Node: in.Node})
		})
	change(a, operation{id: "node-edit", method: http.MethodPatch, path: "/nodes/{node}", noun: "nodes", summary: "Change a node's name, region, address in links, tags and budget, or disable it", role: coreapi.Operator, etag: corestore.KindNode},
		func(ctx context.Context, in *struct {
			NodeIn
			Body coreapi.NodeEdit
		},
		) (corestore.Node, changed, error) {
			return s.nodeEdit(ctx, in.Node, in.Body)
		})
	change(a, operation{id: "node-mtproto", method: http.MethodPut, path: "/nodes/{node}/mtproto", noun: "nodes", summary: "Set what the MTProto inbounds of a node share", role: coreapi.Operator, etag: corestore.KindNode},
		func(ctx context.Context, in *struct {
			NodeIn
			Body json.RawMessage
		},
		) (corestore.Node, changed, error) {
			return s.nodeMTProto(ctx, mtprotoArgs{Node: in.Node, Options: in.Body})
		})
	read(a, operation{id: "announce", method: http.MethodPut, path: "/announcement", noun: "nodes", summary: "Tell nodes a new address of this Core, before it moves", role: coreapi.Owner},
		func(ctx context.Context, in *struct{ Body coreapi.Announcement }) (wire.CoreIdentity, error) {
			return s.announce(ctx, in.Body)
		})
}

func (s *Server) nodeAdd(ctx context.Context, args nodeArgs) (coreapi.NodeAdded, error) {
	if err := checkName("node", args.Node); err != nil {
		return coreapi.NodeAdded{}, err
	}
	node, code, err := s.store.AddNode(ctx, args.Node, args.Region, cmp.Or(args.CodeLife, defaultCodeLife))
	return s.nodeAdded(node, code), err
}

func (s *Server) nodeCode(ctx context.Context, args nodeArgs) (coreapi.NodeAdded, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return coreapi.NodeAdded{}, err
	}
	code, err := s.store.NewCode(ctx, node.ID, cmp.Or(args.CodeLife, defaultCodeLife))
	return s.nodeAdded(node, code), err
}

// codeLife reads how long a code is good; a text without a time is a day.
func codeLife(text string) (time.Duration, error) {
	if text == "" {
		return defaultCodeLife, nil
	}
	life, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, badInput{fmt.Errorf("read how long the code is good: %w; want a time such as 30m or 48h", err)}
	case life < 0:
		return 0, badInput{fmt.Errorf("a code that expires in %s is good for nothing", life)}
	}
	return cmp.Or(life, defaultCodeLife), nil
}

func (s *Server) nodeAdded(node corestore.Node, code string) coreapi.NodeAdded {
	token := wire.JoinToken{CoreURL: s.publicURL, Code: secret.Text(code), Pin: s.pin}
	return coreapi.NodeAdded{ID: node.ID, Name: node.Name, Code: code, JoinToken: token.Encode()}
}

func (s *Server) nodeShow(ctx context.Context, args nodeArgs) (coreapi.NodeDetails, error) {
	var details coreapi.NodeDetails
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
	if details.Refused, err = s.store.Refusals(ctx, details.ID); err != nil {
		return details, err
	}
	hideInNode(ctx, &details.Node)
	hideInRefusals(ctx, details.Refused)
	hideInHealth(ctx, details.Health)
	return details, nil
}

func (s *Server) nodeRemove(ctx context.Context, args nodeArgs) (corestore.Node, error) {
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

func (s *Server) nodeMTProto(ctx context.Context, args mtprotoArgs) (corestore.Node, changed, error) {
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
	return node, changed{nodes: []int64{node.ID}, part: coreapi.Part{Kind: "mtproto"}, warnings: warnings}, err
}

// nodeRotate offers the node another auth key. A held heartbeat is answered, so that the node
// gets it at once.
func (s *Server) nodeRotate(ctx context.Context, args nodeArgs) (corestore.Node, error) {
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

func (s *Server) announce(ctx context.Context, args coreapi.Announcement) (wire.CoreIdentity, error) {
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

func (s *Server) nodeErrors(ctx context.Context, args errorArgs) ([]corestore.NodeError, error) {
	id, err := s.nodeID(ctx, args.Node)
	if err != nil {
		return nil, err
	}
	all, err := s.store.NodeErrors(ctx, id, limit(args.limitArgs))
	if err != nil {
		return nil, err
	}
	return all, hideInErrors(ctx, all)
}

// nodeID returns the id of the named node; 0, which means all nodes, for an empty name.
func (s *Server) nodeID(ctx context.Context, nameOrID string) (int64, error) {
	if nameOrID == "" {
		return 0, nil
	}
	node, err := s.store.Node(ctx, nameOrID)
	return node.ID, err
}
