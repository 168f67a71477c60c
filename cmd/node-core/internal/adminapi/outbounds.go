package adminapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

func registerOutbounds(a api) {
	s := a.server
	read(a, operation{id: "outbound-list", method: http.MethodGet, path: "/outbounds", noun: "outbounds", summary: "List the outbounds with their traffic", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			PageIn
			Node string `query:"node" doc:"Name or id of a node: only that node's."`
			Sort string `query:"sort" enum:"id,-id" default:"id"`
		},
		) (page coreapi.Page[corestore.Outbound], err error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return page, err
			}
			return s.outboundPage(ctx, in.Node, list)
		})
	change(a, operation{id: "outbound-add", method: http.MethodPost, path: "/outbounds", noun: "outbounds", summary: "Add an outbound to a node, or replace the one with the same tag", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewOutbound }) (coreapi.OutboundAdded, changed, error) {
			return s.outboundAdd(ctx, in.Body)
		})
	read(a, operation{id: "outbound-show", method: http.MethodGet, path: "/nodes/{node}/outbounds/{tag}", noun: "outbounds", summary: "Show an outbound with its traffic", role: coreapi.ReadOnly, etag: corestore.KindOutbound},
		func(ctx context.Context, in *struct {
			NodeIn
			Tag string `path:"tag" doc:"The tag of the outbound."`
		},
		) (corestore.Outbound, error) {
			return s.outboundShow(ctx, in.Node, in.Tag)
		})
	change(a, operation{id: "outbound-edit", method: http.MethodPatch, path: "/nodes/{node}/outbounds/{tag}", noun: "outbounds", summary: "Change the object or the tag of an outbound that the node has, or disable it; its traffic is kept", role: coreapi.Operator, etag: corestore.KindOutbound},
		func(ctx context.Context, in *struct {
			NodeIn
			Tag  string `path:"tag" doc:"The tag of the outbound."`
			Body coreapi.OutboundEdit
		},
		) (coreapi.OutboundAdded, changed, error) {
			return s.outboundEdit(ctx, in.Node, in.Tag, in.Body)
		})
	change(a, operation{id: "outbound-replace", method: http.MethodPut, path: "/nodes/{node}/outbounds/{tag}", noun: "outbounds", summary: "Replace the object of an outbound that the node has", role: coreapi.Operator, etag: corestore.KindOutbound},
		func(ctx context.Context, in *struct {
			NodeIn
			Tag  string `path:"tag" doc:"The tag of the outbound."`
			Body json.RawMessage
		},
		) (coreapi.OutboundAdded, changed, error) {
			if _, err := s.outboundShow(ctx, in.Node, in.Tag); err != nil {
				return coreapi.OutboundAdded{}, changed{}, err
			}
			return s.outboundAdd(ctx, coreapi.NewOutbound{Node: in.Node, Tag: in.Tag, Config: in.Body})
		})
	change(a, operation{id: "outbound-remove", method: http.MethodDelete, path: "/nodes/{node}/outbounds/{tag}", noun: "outbounds", summary: "Take an outbound out of a node's configuration; its traffic is kept", role: coreapi.Operator, etag: corestore.KindOutbound},
		func(ctx context.Context, in *struct {
			NodeIn
			Tag string `path:"tag" doc:"The tag of the outbound."`
		},
		) (coreapi.Removed, changed, error) {
			return s.outboundRemove(ctx, coreapi.NewOutbound{Node: in.Node, Tag: in.Tag})
		})
}

func (s *Server) outboundAdd(ctx context.Context, args coreapi.NewOutbound) (coreapi.OutboundAdded, changed, error) {
	out, err := readOutbound(args)
	if err != nil {
		return coreapi.OutboundAdded{}, changed{}, err
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return coreapi.OutboundAdded{}, changed{}, err
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
		return coreapi.OutboundAdded{}, changed{}, err
	}
	out, err = s.store.PutOutbound(ctx, out)
	added := coreapi.OutboundAdded{Outbound: out, Misfits: sentences(nodeconfig.OutboundMisfits(node, out))}
	added.Config = nil
	return added, changed{nodes: []int64{node.ID}, part: coreapi.Part{Kind: "outbound", Tag: out.Tag}, warnings: warnings}, err
}

// outboundEdit changes an outbound that the node has.
func (s *Server) outboundEdit(ctx context.Context, nameOrID, tag string, args coreapi.OutboundEdit) (coreapi.OutboundAdded, changed, error) {
	var added coreapi.OutboundAdded
	node, err := s.store.Node(ctx, nameOrID)
	if err != nil {
		return added, changed{}, err
	}
	edit := func(o *corestore.Outbound) error {
		config := o.Config
		if len(args.Config) > 0 {
			config = args.Config
		}
		read, err := readOutbound(coreapi.NewOutbound{Tag: cmp.Or(deref(args.Tag), o.Tag), Config: config})
		if err != nil {
			return err
		}
		o.Tag, o.Config = read.Tag, read.Config
		if args.Enabled != nil {
			o.Disabled = !*args.Enabled
		}
		return nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.check(ctx, node.ID, func(r *rows) {
		for i := range r.Outbounds {
			if r.Outbounds[i].Tag == tag && len(r.Outbounds[i].Config) > 0 {
				_ = edit(&r.Outbounds[i]) // the store gets the error
			}
		}
	})
	if err != nil {
		return added, changed{}, err
	}
	out, err := s.store.EditOutbound(ctx, node.ID, tag, edit)
	if errors.Is(err, corestore.ErrLastOutbound) {
		err = badInput{err}
	}
	added = coreapi.OutboundAdded{Outbound: out, Misfits: sentences(nodeconfig.OutboundMisfits(node, out))}
	added.Config = nil
	return added, changed{nodes: []int64{node.ID}, part: coreapi.Part{Kind: "outbound", Tag: out.Tag}, warnings: warnings}, err
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// readOutbound reads an outbound's object and gives it its tag.
func readOutbound(args coreapi.NewOutbound) (corestore.Outbound, error) {
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

// outboundPage returns a page of the outbounds of a node; of all nodes for an empty name. They
// come without their objects, which may contain passwords.
func (s *Server) outboundPage(ctx context.Context, nameOrID string, list corestore.List) (page coreapi.Page[corestore.Outbound], err error) {
	id, err := s.nodeID(ctx, nameOrID)
	if err != nil {
		return page, err
	}
	page, err = pageOf(s.store.ListOutbounds(ctx, id, list))
	page.Items = withoutObjects(page.Items)
	return page, err
}

// outboundShow returns an outbound, also one of which only the traffic is left.
func (s *Server) outboundShow(ctx context.Context, nameOrID, tag string) (corestore.Outbound, error) {
	node, err := s.store.Node(ctx, nameOrID)
	if err != nil {
		return corestore.Outbound{}, err
	}
	all, err := s.store.Outbounds(ctx, node.ID)
	if err != nil {
		return corestore.Outbound{}, err
	}
	i := slices.IndexFunc(all, func(o corestore.Outbound) bool { return o.Tag == tag })
	if i < 0 {
		return corestore.Outbound{}, fmt.Errorf("outbound %q of node %s: %w", tag, node.Name, corestore.ErrNotFound)
	}
	return withoutObjects(all[i : i+1])[0], nil
}

func withoutObjects(outbounds []corestore.Outbound) []corestore.Outbound {
	for i := range outbounds {
		var object struct {
			Protocol string `json:"protocol"`
		}
		_ = json.Unmarshal(outbounds[i].Config, &object) // a removed one has none
		outbounds[i].Configured, outbounds[i].Protocol = len(outbounds[i].Config) > 0, object.Protocol
		outbounds[i].Config = nil
	}
	return outbounds
}

func (s *Server) outboundRemove(ctx context.Context, args coreapi.NewOutbound) (coreapi.Removed, changed, error) {
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return coreapi.Removed{}, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.check(ctx, node.ID, func(r *rows) { // another outbound may go through it
		r.Outbounds = slices.DeleteFunc(r.Outbounds, func(o corestore.Outbound) bool { return o.Tag == args.Tag })
	})
	if err != nil {
		return coreapi.Removed{}, changed{}, err
	}
	err = s.store.RemoveOutbound(ctx, node.ID, args.Tag)
	if errors.Is(err, corestore.ErrLastOutbound) {
		err = badInput{err}
	}
	return coreapi.Removed{Removed: args.Tag}, changed{nodes: []int64{node.ID}, warnings: warnings}, err
}
