package adminapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// protocolIn names an inbound or a template in a path.
type protocolIn struct {
	ID string `path:"protocol" doc:"Id of the inbound, or NODE/TAG with the slash as %2F, or the name of a template."`
}

func registerProtocols(a api) {
	s := a.server
	read(a, operation{id: "protocol-list", method: http.MethodGet, path: "/protocols", noun: "protocols", summary: "List the inbounds", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			PageIn
			Node string `query:"node" doc:"Name or id of a node: only that node's."`
			Sort string `query:"sort" enum:"id,-id" default:"id"`
		},
		) (page coreapi.Page[corestore.Protocol], err error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return page, err
			}
			return s.protocolPage(ctx, in.Node, list)
		})
	change(a, operation{id: "protocol-add", method: http.MethodPost, path: "/protocols", noun: "protocols", summary: "Add an inbound to a node", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewProtocol }) (coreapi.ProtocolAdded, changed, error) {
			return s.protocolAdd(ctx, in.Body)
		})
	read(a, operation{id: "template-list", method: http.MethodGet, path: "/templates", noun: "protocols", summary: "List the templates of inbounds", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]coreapi.Template, error) { return s.templateList(ctx) })
	read(a, operation{id: "protocol-show", method: http.MethodGet, path: "/protocols/{protocol}", noun: "protocols", summary: "Show an inbound or a template, without its private keys", role: coreapi.ReadOnly, etag: corestore.KindProtocol},
		func(ctx context.Context, in *protocolIn) (coreapi.ProtocolDetails, error) {
			return s.protocolShow(ctx, idArgs(*in))
		})
	change(a, operation{id: "protocol-edit", method: http.MethodPatch, path: "/protocols/{protocol}", noun: "protocols", summary: "Change an inbound, or a template and with it all inbounds that have it", role: coreapi.Operator, etag: corestore.KindProtocol},
		func(ctx context.Context, in *struct {
			ID   string `path:"protocol" doc:"Id of the inbound, or NODE/TAG with the slash as %2F, or the name of a template."`
			Body coreapi.ProtocolEdit
		},
		) (coreapi.ProtocolDetails, changed, error) {
			return s.protocolEdit(ctx, in.ID, in.Body)
		})
	change(a, operation{id: "protocol-rotate", method: http.MethodPost, path: "/protocols/{protocol}/rotate", noun: "protocols", summary: "Give a REALITY inbound, or a template, other keys; links of before connect no more", role: coreapi.Operator, etag: corestore.KindProtocol},
		func(ctx context.Context, in *protocolIn) (coreapi.ProtocolDetails, changed, error) {
			return s.protocolRotate(ctx, in.ID)
		})
	change(a, operation{id: "protocol-remove", method: http.MethodDelete, path: "/protocols/{protocol}", noun: "protocols", summary: "Remove an inbound", role: coreapi.Operator, etag: corestore.KindProtocol},
		func(ctx context.Context, in *protocolIn) (coreapi.Removed, changed, error) {
			return s.protocolRemove(ctx, idArgs(*in))
		})
}

func (s *Server) protocolAdd(ctx context.Context, args coreapi.NewProtocol) (coreapi.ProtocolAdded, changed, error) {
	if args.Node == "" && args.Template != "" {
		return s.templateAdd(ctx, args)
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return coreapi.ProtocolAdded{}, changed{}, err
	}
	p, warnings, err := s.addProtocol(ctx, node, args)
	if err != nil {
		return coreapi.ProtocolAdded{}, changed{}, err
	}
	added := coreapi.ProtocolAdded{Protocol: p, Borrows: nodeconfig.Borrows(p), Misfits: sentences(nodeconfig.ProtocolMisfits(node, p))}
	if open := nodeconfig.InTheOpen(p); open != "" {
		added.Texts = append(added.Texts, open)
	}
	added.Config = nil // it contains private keys
	return added, changed{nodes: []int64{p.NodeID}, part: partOf(p), warnings: warnings}, nil
}

// addProtocol stores the inbound where the node would take it. It makes the inbound anew where another
// instance of Core has changed the template meanwhile.
func (s *Server) addProtocol(ctx context.Context, node corestore.Node, args coreapi.NewProtocol) (p corestore.Protocol, warnings []string, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	for range maxEdits {
		if p, warnings, err = s.addProtocolLocked(ctx, node, args); !errors.Is(err, corestore.ErrChanged) {
			break
		}
	}
	return p, warnings, err
}

func (s *Server) addProtocolLocked(ctx context.Context, node corestore.Node, args coreapi.NewProtocol) (p corestore.Protocol, warnings []string, err error) {
	add := s.store.AddProtocol
	if args.Template != "" {
		template, err := s.store.Template(ctx, args.Template)
		if err != nil {
			return p, nil, err
		}
		if p, err = s.useTemplate(ctx, node, template, args); err != nil {
			return p, nil, err
		}
		add = func(ctx context.Context, p corestore.Protocol) (corestore.Protocol, error) {
			return s.store.AddProtocolOf(ctx, p, template)
		}
	} else if p, err = readProtocol(args); err != nil {
		return p, nil, err
	}
	p.NodeID = node.ID
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
	if err := s.freePortLocked(ctx, p); err != nil {
		return p, nil, err
	}
	if warnings, err = s.checkProtocol(ctx, p); err != nil {
		return p, nil, err
	}
	p, err = add(ctx, p)
	return p, warnings, err
}

// readProtocol makes the row of what the flags or the native object describe.
func readProtocol(args coreapi.NewProtocol) (p corestore.Protocol, err error) {
	p = corestore.Protocol{Tag: args.Tag, Protocol: args.Flags.Protocol, Listen: args.Flags.Listen, Port: args.Flags.Port, Enabled: true}
	if args.Inbound != nil {
		err = nodeconfig.FromNative(args.Inbound, args.Flags, &p)
	} else {
		err = nodeconfig.FromFlags(args.Flags, &p)
	}
	if err != nil {
		return p, badInput{err}
	}
	return p, nil
}

// useTemplate makes the row of an inbound that has a template. Its tag is the template's name,
// unless another one is given or the node has that already.
func (s *Server) useTemplate(ctx context.Context, node corestore.Node, template corestore.Template, args coreapi.NewProtocol) (p corestore.Protocol, err error) {
	own, err := nodeconfig.OverridesOf(args.Flags)
	if err != nil {
		return p, badInput{err}
	}
	if args.Inbound != nil {
		return p, badInput{errors.New("give either the template or the inbound")}
	}
	p = corestore.Protocol{Tag: args.Tag, Enabled: true}
	if p.Tag == "" {
		if _, err := s.store.ProtocolID(ctx, node.ID, template.Name); errors.Is(err, corestore.ErrNotFound) {
			p.Tag = template.Name
		} else if err != nil {
			return p, err
		}
	}
	if p, err = nodeconfig.Use(template, p, own); err != nil {
		return p, badInput{err}
	}
	return p, nil
}

// checkProtocol checks a new inbound with the node's own rules.
func (s *Server) checkProtocol(ctx context.Context, p corestore.Protocol) (warnings []string, err error) {
	return s.check(ctx, p.NodeID, func(r *rows) {
		for _, other := range r.Protocols {
			p.ID = max(p.ID, other.ID)
			if other.Tag == p.Tag {
				return // the store refuses it
			}
		}
		p.ID++                         // the store gives it an id of its own
		for n := 1; p.Tag == ""; n++ { // as the store does
			tag := fmt.Sprintf("%s-%d", p.Protocol, n)
			if !slices.ContainsFunc(r.Protocols, func(other corestore.Protocol) bool { return other.Tag == tag }) {
				p.Tag = tag
			}
		}
		r.Protocols = append(r.Protocols, p)
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
		if other.ID != p.ID && nodeconfig.Collide(p, other) {
			return badInput{fmt.Errorf("protocol %s of this node already listens on %s port %d", other.Tag, cmp.Or(other.Listen, "all addresses,"), other.Port)}
		}
	}
	return nil
}

// sentences returns the texts of misfits.
func sentences(misfits []nodeconfig.Misfit) (all coreapi.Misfits) {
	for _, m := range misfits {
		all.Texts = append(all.Texts, m.Text)
	}
	return all
}

// protocolPage returns a page of the inbounds of a node; of all nodes for an empty name.
func (s *Server) protocolPage(ctx context.Context, nameOrID string, list corestore.List) (page coreapi.Page[corestore.Protocol], err error) {
	id, err := s.nodeID(ctx, nameOrID)
	if err != nil {
		return page, err
	}
	page, err = pageOf(s.store.ListProtocols(ctx, id, list))
	if err != nil {
		return page, err
	}
	nodes, err := s.store.Nodes(ctx)
	page.Items = shown(page.Items, nodes...)
	return page, err
}

// unsupported is the status of an inbound that is left out of its node's configuration.
const unsupported = "unsupported"

// statusOf returns the status of an inbound as an answer has it.
func statusOf(p corestore.Protocol, node corestore.Node) string {
	switch {
	case !p.Enabled || !node.Serves():
		return "disabled"
	case nodeconfig.LeftOut(node, p):
		return unsupported
	}
	return p.Status
}

// shown returns inbounds as an answer has them: without their objects, which contain private
// keys, and with the status disabled or unsupported where one of the nodes does not get its inbound.
func shown(protocols []corestore.Protocol, nodes ...corestore.Node) []corestore.Protocol {
	for i := range protocols {
		p := &protocols[i]
		if i := slices.IndexFunc(nodes, func(n corestore.Node) bool { return n.ID == p.NodeID }); i >= 0 {
			p.Status = statusOf(*p, nodes[i])
		}
		p.Config = nil
	}
	return protocols
}

func (s *Server) protocolRemove(ctx context.Context, args idArgs) (coreapi.Removed, changed, error) {
	if isTemplate(args.ID) {
		template, err := s.template(ctx, args.ID)
		if err != nil {
			return coreapi.Removed{}, changed{}, err
		}
		return coreapi.Removed{Removed: template.Name}, changed{}, s.store.RemoveTemplate(ctx, template.ID)
	}
	id, err := s.protocolID(ctx, args.ID)
	if err != nil {
		return coreapi.Removed{}, changed{}, err
	}
	node, err := s.store.RemoveProtocol(ctx, id)
	return coreapi.Removed{Removed: strconv.FormatInt(id, 10)}, changed{nodes: []int64{node}}, err
}

// protocolID returns the id of the inbound that an operator names: by the id, or by its node
// (name or id) and tag with a slash between.
func (s *Server) protocolID(ctx context.Context, word string) (int64, error) {
	if id, err := strconv.ParseInt(word, 10, 64); err == nil {
		return id, nil
	}
	node, tag, both := strings.Cut(word, "/")
	if !both {
		return 0, badInput{fmt.Errorf("%q is neither an id nor NODE/TAG; 'node-core protocol list' shows them", word)}
	}
	nodeID, err := s.nodeID(ctx, node)
	if err != nil {
		return 0, err
	}
	return s.store.ProtocolID(ctx, nodeID, tag)
}
