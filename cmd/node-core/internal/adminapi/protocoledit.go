package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// isTemplate reports whether a word names a template: what is neither an id nor NODE/TAG.
func isTemplate(word string) bool {
	_, err := strconv.ParseInt(word, 10, 64)
	return err != nil && !strings.Contains(word, "/")
}

// template finds the template that a word names.
func (s *Server) template(ctx context.Context, word string) (corestore.Template, error) {
	t, err := s.store.Template(ctx, word)
	if errors.Is(err, corestore.ErrNotFound) {
		err = badInput{fmt.Errorf("%q is neither an id nor NODE/TAG; 'node-core protocol list' shows them. Nor does a template have that name", word)}
	}
	return t, err
}

// protocolEditor is what is done to an inbound or to a template.
type protocolEditor func(p corestore.Protocol, own coreapi.Overrides) (corestore.Protocol, error)

func (s *Server) protocolEdit(ctx context.Context, word string, args coreapi.ProtocolEdit) (coreapi.ProtocolDetails, changed, error) {
	if err := checkNote(args.Note); err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	if args.Tag != nil {
		if err := checkName("protocol", *args.Tag); err != nil {
			return coreapi.ProtocolDetails{}, changed{}, err
		}
	}
	edit := func(p corestore.Protocol, own coreapi.Overrides) (corestore.Protocol, error) {
		set(&p.Tag, args.Tag)
		set(&p.Note, args.Note)
		set(&p.Enabled, args.Enabled)
		var err error
		if args.Inbound != nil {
			if p, err = withObject(p, args.Inbound, own); err != nil {
				return p, err
			}
		}
		return nodeconfig.Override(p, own)
	}
	if isTemplate(word) {
		if args.Enabled != nil {
			return coreapi.ProtocolDetails{}, changed{}, badInput{errors.New("a template serves nobody: disable the protocols that have it")}
		}
		return s.editTemplate(ctx, word, args.Overrides, edit)
	}
	return s.editProtocol(ctx, word, args.Overrides, edit)
}

// withObject replaces the inbound's object. Where neither the object nor an override says where to listen,
// it is as before.
func withObject(p corestore.Protocol, raw json.RawMessage, own coreapi.Overrides) (corestore.Protocol, error) {
	if p.TemplateID != 0 {
		return p, errors.New("the inbound has a template: edit that, or remove the inbound and add another one")
	}
	var head struct {
		Listen string          `json:"listen"`
		Port   json.RawMessage `json:"port"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return p, fmt.Errorf("read the inbound: %w", err)
	}
	tag, listen, port, public := p.Tag, p.Listen, p.Port, p.Link.PublicHost
	if head.Listen != "" || own.Listen != "" {
		listen = own.Listen
	}
	if head.Port != nil || own.Port != 0 {
		port = own.Port
	}
	p.Listen, p.Port = listen, port
	err := nodeconfig.FromNative(raw, nodeconfig.InboundFlags{Protocol: p.Protocol, Listen: listen, Port: port}, &p)
	p.Tag, p.Link.PublicHost = tag, public
	return p, err
}

// protocolRotate gives a REALITY inbound, or a template, other keys.
func (s *Server) protocolRotate(ctx context.Context, word string) (coreapi.ProtocolDetails, changed, error) {
	edit := func(p corestore.Protocol, _ coreapi.Overrides) (corestore.Protocol, error) {
		if p.TemplateID != 0 {
			return p, errors.New("the keys are those of the inbound's template: rotate that")
		}
		return nodeconfig.Rotate(p)
	}
	if isTemplate(word) {
		return s.editTemplate(ctx, word, coreapi.Overrides{}, edit)
	}
	return s.editProtocol(ctx, word, coreapi.Overrides{}, edit)
}

// editProtocol edits one inbound and stores it where the node would take it.
func (s *Server) editProtocol(ctx context.Context, word string, own coreapi.Overrides, edit protocolEditor) (coreapi.ProtocolDetails, changed, error) {
	id, err := s.protocolID(ctx, word)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	p, err := s.store.Protocol(ctx, id)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	if p.TemplateID != 0 {
		template, err := s.store.Template(ctx, strconv.FormatInt(p.TemplateID, 10))
		if err != nil {
			return coreapi.ProtocolDetails{}, changed{}, err
		}
		all := p.Overrides.Merge(own)
		if p, err = nodeconfig.Use(template, p, all); err == nil {
			p, err = edit(p, coreapi.Overrides{})
		}
		if err != nil {
			return coreapi.ProtocolDetails{}, changed{}, badInput{err}
		}
	} else if p, err = edit(p, own); err != nil {
		return coreapi.ProtocolDetails{}, changed{}, badInput{err}
	}
	warnings, err := s.checkEdited(ctx, p)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	nodes, err := s.store.UpdateProtocols(ctx, []corestore.Protocol{p}, nil)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	details, err := s.protocolDetails(ctx, p)
	return details, changed{nodes: nodes, part: partOf(p), warnings: warnings}, err
}

// partOf is the part of a configuration that an inbound is.
func partOf(p corestore.Protocol) coreapi.Part {
	if p.Protocol == "mtproto" {
		return coreapi.Part{Kind: "mtproto", Tag: p.Tag}
	}
	return coreapi.Part{Kind: "inbound", Tag: p.Tag}
}

// checkEdited checks an edited inbound as protocolAdd checks a new one.
func (s *Server) checkEdited(ctx context.Context, p corestore.Protocol) (warnings []string, err error) {
	node, err := s.store.NodeByID(ctx, p.NodeID)
	if err != nil {
		return nil, err
	}
	if err := nodeconfig.Check(node, p); err != nil {
		return nil, badInput{err}
	}
	if _, err := nodeconfig.Bindings(p); err != nil {
		return nil, badInput{err}
	}
	if other, err := s.store.ProtocolID(ctx, p.NodeID, p.Tag); err == nil && other != p.ID {
		return nil, fmt.Errorf("protocol %q on this node: %w", p.Tag, corestore.ErrExists)
	}
	if err := s.freePortLocked(ctx, p); err != nil {
		return nil, err
	}
	return s.check(ctx, p.NodeID, func(r *rows) {
		if i := slices.IndexFunc(r.Protocols, func(other corestore.Protocol) bool { return other.ID == p.ID }); i >= 0 {
			r.Protocols[i] = p
		}
	})
}

// editTemplate edits a template and all inbounds that have it, all or nothing.
func (s *Server) editTemplate(ctx context.Context, name string, own coreapi.Overrides, edit protocolEditor) (coreapi.ProtocolDetails, changed, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	template, err := s.template(ctx, name)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	p, err := edit(ofTemplate(template), own)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, badInput{err}
	}
	template.Name, template.Note, template.Listen, template.Port, template.Config, template.Link = p.Tag, p.Note, p.Listen, p.Port, p.Config, p.Link
	if err := nodeconfig.Check(corestore.Node{}, p); err != nil {
		return coreapi.ProtocolDetails{}, changed{}, badInput{err}
	}
	uses, err := s.store.UsesOf(ctx, template.ID)
	if err != nil {
		return coreapi.ProtocolDetails{}, changed{}, err
	}
	var warnings []string
	for i := range uses {
		if uses[i], err = nodeconfig.Use(template, uses[i], uses[i].Overrides); err != nil {
			return coreapi.ProtocolDetails{}, changed{}, badInput{fmt.Errorf("protocol %s of node %d: %w", uses[i].Tag, uses[i].NodeID, err)}
		}
		more, err := s.checkEdited(ctx, uses[i])
		if err != nil {
			return coreapi.ProtocolDetails{}, changed{}, fmt.Errorf("protocol %s of node %d: %w", uses[i].Tag, uses[i].NodeID, err)
		}
		warnings = append(warnings, more...)
	}
	nodes, err := s.store.UpdateTemplate(ctx, template, uses)
	return describe(ofTemplate(template)), changed{nodes: nodes, warnings: warnings}, err
}

// ofTemplate is a template in the form of an inbound of no node.
func ofTemplate(t corestore.Template) corestore.Protocol {
	return corestore.Protocol{ID: t.ID, Tag: t.Name, Note: t.Note, Protocol: t.Protocol, Listen: t.Listen, Port: t.Port, Config: t.Config, Link: t.Link, Enabled: true, Status: "template"}
}

// describe is an inbound as an answer has it: without its object, which has private keys.
func describe(p corestore.Protocol) coreapi.ProtocolDetails {
	d := coreapi.ProtocolDetails{Summary: nodeconfig.Summarize(p), Protocol: p}
	d.Config = nil
	return d
}

// protocolDetails describes an inbound, with the names of its node and template and with the
// groups that are on it.
func (s *Server) protocolDetails(ctx context.Context, p corestore.Protocol) (coreapi.ProtocolDetails, error) {
	node, err := s.store.NodeByID(ctx, p.NodeID)
	if err != nil {
		return coreapi.ProtocolDetails{}, err
	}
	d := describe(p)
	d.Node, d.Status = node.Name, statusOf(p, node)
	if p.TemplateID != 0 {
		template, err := s.store.Template(ctx, strconv.FormatInt(p.TemplateID, 10))
		if err != nil {
			return d, err
		}
		d.Template = template.Name
	}
	groups, err := s.store.Groups(ctx)
	for _, g := range groups {
		if g.Reaches(p.NodeID, p.ID) {
			d.Groups = append(d.Groups, g.Name)
		}
	}
	return d, err
}

func (s *Server) protocolShow(ctx context.Context, args idArgs) (coreapi.ProtocolDetails, error) {
	if isTemplate(args.ID) {
		template, err := s.template(ctx, args.ID)
		if err != nil {
			return coreapi.ProtocolDetails{}, err
		}
		d := describe(ofTemplate(template))
		d.Uses = &template.Uses
		return d, nil
	}
	id, err := s.protocolID(ctx, args.ID)
	if err != nil {
		return coreapi.ProtocolDetails{}, err
	}
	p, err := s.store.Protocol(ctx, id)
	if err != nil {
		return coreapi.ProtocolDetails{}, err
	}
	return s.protocolDetails(ctx, p)
}

func (s *Server) templateList(ctx context.Context) ([]corestore.Template, error) {
	templates, err := s.store.Templates(ctx)
	for i := range templates {
		templates[i].Config = nil // it contains private keys
	}
	return templates, err
}

// templateAdd stores a template of what the flags or the object describe.
func (s *Server) templateAdd(ctx context.Context, args coreapi.NewProtocol) (coreapi.ProtocolAdded, changed, error) {
	if err := checkName("template", args.Template); err != nil {
		return coreapi.ProtocolAdded{}, changed{}, err
	}
	if !isTemplate(args.Template) {
		return coreapi.ProtocolAdded{}, changed{}, badInput{fmt.Errorf("%q can't name a template: it would be taken for NODE/TAG", args.Template)}
	}
	p, err := readProtocol(args)
	if err != nil {
		return coreapi.ProtocolAdded{}, changed{}, badInput{err}
	}
	p.Tag = args.Template
	if err := nodeconfig.Check(corestore.Node{}, p); err != nil {
		return coreapi.ProtocolAdded{}, changed{}, badInput{err}
	}
	t, err := s.store.AddTemplate(ctx, corestore.Template{Name: args.Template, Protocol: p.Protocol, Listen: p.Listen, Port: p.Port, Config: p.Config, Link: p.Link})
	added := coreapi.ProtocolAdded{Protocol: ofTemplate(t), Borrows: nodeconfig.Borrows(p)}
	if open := nodeconfig.InTheOpen(p); open != "" {
		added.Texts = append(added.Texts, open)
	}
	added.Config = nil
	return added, changed{}, err
}
