package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/google/uuid"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

const (
	maxImportBody  = 128 << 20 // bytes
	maxImportParts = 2000      // inbounds, groups, and hosts of an inbound
	maxCredential  = 1000      // bytes of each text of a credential
)

func registerImport(a api) {
	change(a, operation{id: "import", method: http.MethodPost, path: "/import", noun: "users", summary: "Add what another panel had: inbounds, groups and users with their credentials and counters", role: coreapi.Operator, maxBody: maxImportBody},
		func(ctx context.Context, in *struct{ Body coreapi.Import }) (coreapi.Imported, changed, error) {
			return a.server.importAll(ctx, in.Body)
		})
}

func (s *Server) importAll(ctx context.Context, args coreapi.Import) (coreapi.Imported, changed, error) {
	done := coreapi.Imported{Protocols: []coreapi.ImportedPart{}, Groups: []coreapi.ImportedPart{}, Users: []coreapi.ImportedPart{}}
	if n := max(len(args.Protocols), len(args.Groups)); len(args.Users) > corestore.MaxBulk || n > maxImportParts {
		return done, changed{}, badInput{fmt.Errorf("%d users, %d inbounds and %d groups at once: want at most %d users and %d of the others", len(args.Users), len(args.Protocols), len(args.Groups), corestore.MaxBulk, maxImportParts)}
	}
	node, err := s.store.Node(ctx, args.Node)
	if err != nil {
		return done, changed{}, err
	}
	in := corestore.Import{NodeID: node.ID, DryRun: args.DryRun, Groups: args.Groups}
	if in.Users, err = importUsers(args.Users); err != nil {
		return done, changed{}, err
	}
	for i, g := range args.Groups {
		if err := checkName("group", g.Name); err != nil {
			return done, changed{}, inRow("groups", i, err)
		}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if done.Protocols, in.Known, in.Protocols, err = s.importProtocolsLocked(ctx, node, args.Protocols); err != nil {
		return done, changed{}, err
	}
	if done.Texts, err = s.checkImport(ctx, &done, &in); err != nil {
		return done, changed{}, err
	}
	stored, err := s.store.Import(ctx, in)
	if err != nil {
		return done, changed{}, err
	}
	done.Groups, done.Users = append(done.Groups, stored.Groups...), append(done.Users, stored.Users...)
	return done, changed{nodes: stored.Nodes, serving: true}, nil
}

// importProtocolsLocked makes the rows of the inbounds that are new, and says of each what becomes
// of it. known are the inbounds that the node has, without those whose tag another inbound of the
// import has too. The caller holds changing until the inbounds are stored.
func (s *Server) importProtocolsLocked(ctx context.Context, node corestore.Node, wanted []coreapi.ImportProtocol) (parts []coreapi.ImportedPart, known map[string]int64, add []corestore.ImportProtocol, err error) {
	there, err := s.store.Protocols(ctx, node.ID)
	if err != nil {
		return nil, nil, nil, err
	}
	known, parts = map[string]int64{}, []coreapi.ImportedPart{}
	for _, p := range there {
		known[p.Tag] = p.ID
	}
	for _, w := range wanted {
		part := coreapi.ImportedPart{Name: w.Tag, State: coreapi.ImportAdded}
		row, err := importProtocol(node, w)
		same := slices.IndexFunc(there, func(p corestore.Protocol) bool { return p.Tag == row.Tag })
		switch {
		case err != nil:
			part.State, part.Reason = coreapi.ImportRefused, err.Error()
		case same >= 0 && there[same].Protocol == row.Protocol.Protocol && there[same].Port == row.Port:
			part.State = coreapi.ImportPresent
		case same >= 0:
			part.State, part.Reason = coreapi.ImportRefused, "the node has another inbound with this tag"
			delete(known, w.Tag)
		default:
			for _, other := range there {
				if nodeconfig.Collide(row.Protocol, other) {
					part.State, part.Reason = coreapi.ImportRefused, fmt.Sprintf("the inbound %s of the node listens on port %d already", other.Tag, other.Port)
				}
			}
		}
		if part.State == coreapi.ImportAdded {
			there, add = append(there, row.Protocol), append(add, row)
		}
		parts = append(parts, part)
	}
	return parts, known, add, nil
}

// importProtocol makes the row of an inbound.
func importProtocol(node corestore.Node, w coreapi.ImportProtocol) (row corestore.ImportProtocol, err error) {
	row.Tag = w.Tag
	if err := checkName("protocol", w.Tag); err != nil {
		return row, err
	}
	if err := checkNote(&w.Note); err != nil {
		return row, err
	}
	if len(w.Hosts) > maxImportParts {
		return row, fmt.Errorf("%d hosts: want at most %d", len(w.Hosts), maxImportParts)
	}
	if w.Inbound == nil {
		return row, errors.New("there is no inbound")
	}
	p, err := readProtocol(coreapi.NewProtocol{Tag: w.Tag, Inbound: w.Inbound, Flags: coreapi.InboundFlags{SNI: w.SNI, Flow: w.Flow}})
	if err != nil {
		return row, err
	}
	p.Note, p.Enabled, p.NodeID = w.Note, !w.Disabled, node.ID
	row.Protocol = p
	if err := nodeconfig.Check(node, p); err != nil {
		return row, err
	}
	if _, err := nodeconfig.Bindings(p); err != nil {
		return row, err
	}
	for i, edit := range w.Hosts {
		h := corestore.Host{}
		h.Enabled, h.Position = true, int64(i)
		if err := setHost(&h, edit); err != nil {
			return row, fmt.Errorf("host %d: %w", i, err)
		}
		row.Hosts = append(row.Hosts, h)
	}
	return row, nil
}

// checkImport leaves out the new inbounds that every node would refuse, by the node's own rules.
func (s *Server) checkImport(ctx context.Context, done *coreapi.Imported, in *corestore.Import) (warnings []string, err error) {
	if len(in.Protocols) == 0 {
		return nil, nil
	}
	found, err := s.findings(ctx, in.NodeID, func(r *rows) {
		last := int64(0)
		for _, p := range r.Protocols {
			last = max(last, p.ID)
		}
		for i, p := range in.Protocols {
			p.ID = last + int64(i) + 1 // the store gives it an id of its own
			r.Protocols = append(r.Protocols, p.Protocol)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, f := range found.Refused {
		at := slices.IndexFunc(done.Protocols, func(p coreapi.ImportedPart) bool { return p.Name == f.Tag })
		if f.Tag == "" || at < 0 {
			return nil, refusal(found.Refused)
		}
		done.Protocols[at].State, done.Protocols[at].Reason = coreapi.ImportRefused, f.Message
		in.Protocols = slices.DeleteFunc(in.Protocols, func(p corestore.ImportProtocol) bool { return p.Tag == f.Tag })
	}
	return found.Warnings, nil
}

// importUsers checks the users and makes their rows.
func importUsers(wanted []coreapi.ImportUser) ([]corestore.ImportUser, error) {
	users := make([]corestore.ImportUser, len(wanted))
	for i, w := range wanted {
		if err := importUser(&users[i], w); err != nil {
			return nil, inRow("users", i, err)
		}
	}
	return users, nil
}

func importUser(row *corestore.ImportUser, w coreapi.ImportUser) error {
	if err := checkName("user", w.Name); err != nil {
		return err
	}
	if w.Origin == "" || len(w.Origin) > maxTag || strings.ContainsFunc(w.Origin, unicode.IsControl) {
		return badInput{fmt.Errorf("user %q needs an origin of 1 to %d bytes without control characters", w.Name, maxTag)}
	}
	if len(w.Subscriptions) > maxBulkOfOne {
		return badInput{fmt.Errorf("user %q has %d subscriptions: want at most %d", w.Name, len(w.Subscriptions), maxBulkOfOne)}
	}
	edit, err := userEditor(coreapi.UserEdit{Note: w.Note, Contact: w.Contact})
	if err != nil {
		return err
	}
	row.Name, row.Origin = w.Name, w.Origin
	if err := edit(&row.User); err != nil {
		return err
	}
	for _, sub := range w.Subscriptions {
		s, err := importSubscription(sub)
		if err != nil {
			return badInput{fmt.Errorf("user %q: %w", w.Name, err)}
		}
		row.Subscriptions = append(row.Subscriptions, s)
	}
	return nil
}

func importSubscription(w coreapi.ImportSubscription) (s corestore.ImportSubscription, err error) {
	if w.UUID != "" {
		if id, err := uuid.Parse(w.UUID); err != nil || id.String() != w.UUID {
			return s, errors.New("the UUID of a subscription is not 32 hex digits in small letters with hyphens")
		}
	}
	if err := checkNote(&w.Note); err != nil {
		return s, err
	}
	if w.ExpiresAfterSeconds < 0 || w.ExpiresAfterSeconds > maxLife || w.ExpiresAt != nil && w.ExpiresAfterSeconds > 0 {
		return s, errors.New("it expires either at a time, or after up to a thousand years")
	}
	if w.UsedUp < 0 || w.UsedDown < 0 || w.BytesUp < w.UsedUp || w.BytesDown < w.UsedDown {
		return s, errors.New("the bytes of the period are below zero, or more than all bytes")
	}
	s = corestore.ImportSubscription{Group: w.Group, UsedUp: w.UsedUp, UsedDown: w.UsedDown}
	s.UUID, s.Enabled, s.Note, s.BytesUp, s.BytesDown = w.UUID, !w.Disabled, w.Note, w.BytesUp, w.BytesDown
	s.Terms = corestore.Terms{LimitBytes: w.LimitBytes, Period: w.Period, LimitIPs: w.LimitIPs}
	if w.Period == "" {
		s.Period = "none"
	}
	if err := s.Check(); err != nil {
		return s, err
	}
	s.ExpiresAt, s.ExpiresAfterSeconds, s.PeriodStart = w.ExpiresAt, w.ExpiresAfterSeconds, w.PeriodStart
	if w.CreatedAt != nil {
		s.CreatedAt = w.CreatedAt.UTC()
	}
	if len(w.Credentials) > maxBulkOfOne {
		return s, fmt.Errorf("%d credentials of one subscription: want at most %d", len(w.Credentials), maxBulkOfOne)
	}
	for _, c := range w.Credentials {
		for _, text := range append([]string{c.Tag, c.Protocol, c.ID, c.Password, c.Flow, c.Method, c.PrivateKey, c.PublicKey, c.PreSharedKey}, c.AllowedIPs...) {
			if len(text) > maxCredential || strings.ContainsFunc(text, unicode.IsControl) {
				return s, fmt.Errorf("a credential of %s has more than %d bytes, or control characters", c.Protocol, maxCredential)
			}
		}
		c.ProtocolID = 0
		s.Own, s.Tags = append(s.Own, c.Credential), append(s.Tags, c.Tag)
	}
	return s, nil
}
