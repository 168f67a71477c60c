package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// Import is what another panel had, for one node. The store trusts that it was checked.
type Import struct {
	NodeID    int64
	DryRun    bool
	Known     map[string]int64 // the inbounds that the node has already, by their tags
	Protocols []ImportProtocol
	Groups    []coreapi.ImportGroup
	Users     []ImportUser
}

// ImportProtocol is an inbound to add, with its hosts.
type ImportProtocol struct {
	Protocol
	Hosts []Host
}

// ImportUser is a user to add.
type ImportUser struct {
	User
	Subscriptions []ImportSubscription
}

// ImportSubscription is a subscription to add: its UUID is kept unless it is empty, and its
// counters begin at BytesUp and BytesDown.
type ImportSubscription struct {
	Subscription
	Group            string       // by name; empty for the default one
	UsedUp, UsedDown int64        // of the counters, the bytes of the present period
	Own              []Credential // become Credentials
	Tags             []string     // the inbound of each in Own; "" for all of the protocol
}

// Imported is what has become of the parts, and the nodes whose revision was raised.
type Imported struct {
	Groups, Users []coreapi.ImportedPart
	Nodes         []int64
}

// errDryRun ends the transaction of a dry run.
var errDryRun = errors.New("dry run")

// Import adds everything in one transaction. What is there already stays as it is: a group by its
// name, a user by the origin. A user whose name or UUID another one has is refused, and the rest is
// added. A dry run does the same and takes it back.
func (s *Store) Import(ctx context.Context, in Import) (done Imported, err error) {
	defer s.enforcing.wake()
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		i := importing{store: s, tx: tx, in: in, now: s.clock(), zone: s.Timezone(), tags: maps.Clone(in.Known), groups: map[string]int64{}, names: map[string]bool{}, uuids: map[string]bool{}}
		if err := i.run(ctx); err != nil {
			return err
		}
		done = i.done
		if in.DryRun {
			return errDryRun
		}
		return nil
	})
	if errors.Is(err, errDryRun) {
		done.Nodes, err = nil, nil
	}
	return done, err
}

// importing is one Import in its transaction.
type importing struct {
	store  *Store
	tx     *sql.Tx
	in     Import
	now    time.Time
	zone   *time.Location   // in which periods begin
	tags   map[string]int64 // the node's inbounds
	groups map[string]int64 // by name
	names  map[string]bool  // of the users that are added
	uuids  map[string]bool  // of the subscriptions that are added
	done   Imported
}

func (i *importing) run(ctx context.Context) error {
	if i.tags == nil {
		i.tags = map[string]int64{}
	}
	if err := i.addProtocols(ctx); err != nil {
		return err
	}
	if err := i.addGroups(ctx); err != nil {
		return err
	}
	served, err := i.addUsers(ctx)
	if err != nil {
		return err
	}
	if i.done.Nodes, err = i.store.raiseReached(ctx, i.tx, served...); err != nil {
		return err
	}
	if len(i.in.Protocols) > 0 && !slices.Contains(i.done.Nodes, i.in.NodeID) {
		raised, err := raiseRevision(ctx, i.tx, i.in.NodeID)
		i.done.Nodes = append(i.done.Nodes, raised...)
		return err
	}
	return nil
}

func (i *importing) addProtocols(ctx context.Context) (err error) {
	for _, p := range i.in.Protocols {
		p.NodeID = i.in.NodeID
		if p.Protocol, err = insertProtocol(ctx, i.tx, p.Protocol); err != nil {
			return err
		}
		i.tags[p.Tag] = p.ID
		for _, h := range p.Hosts {
			h.ProtocolID = p.ID
			if _, err := insertHost(ctx, i.tx, h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *importing) addGroups(ctx context.Context) error {
	for _, g := range i.in.Groups {
		part := coreapi.ImportedPart{Name: g.Name, State: coreapi.ImportPresent}
		id, err := groupID(ctx, i.tx, g.Name)
		if errors.Is(err, sql.ErrNoRows) {
			part.State = coreapi.ImportAdded
			row := Group{Name: g.Name, Note: g.Note}
			for _, tag := range g.Tags {
				if protocol, there := i.tags[tag]; there {
					row.Protocols = append(row.Protocols, protocol)
				}
			}
			if row, err = insertGroup(ctx, i.tx, row); err != nil {
				return err
			}
			id = row.ID
		} else if err != nil {
			return fmt.Errorf("find the group %q: %w", g.Name, err)
		}
		i.groups[g.Name] = id
		i.done.Groups = append(i.done.Groups, part)
	}
	return nil
}

func groupID(ctx context.Context, tx *sql.Tx, name string) (id int64, err error) {
	return id, tx.QueryRowContext(ctx, `SELECT id FROM access_groups WHERE name = ?`, name).Scan(&id)
}

// addUsers adds the users that are not there yet. It returns the groups of the subscriptions that
// are let in.
func (i *importing) addUsers(ctx context.Context) (served []int64, err error) {
	var add []NewUser
	var subs []*ImportSubscription
	for part := range slices.Chunk(i.in.Users, rowsPerInsert) {
		taken, err := takenBy(ctx, i.tx, part)
		if err != nil {
			return nil, err
		}
		for u := range part {
			user := &part[u]
			state := i.stateOf(*user, taken)
			i.done.Users = append(i.done.Users, state)
			if state.State != coreapi.ImportAdded {
				continue
			}
			add = append(add, NewUser{User: user.User})
			for n := range user.Subscriptions {
				sub := &user.Subscriptions[n]
				sub.UserID = int64(len(add) - 1) // its place, until the users have ids
				if err := i.settle(ctx, sub); err != nil {
					return nil, fmt.Errorf("user %q: %w", user.Name, err)
				}
				subs = append(subs, sub)
			}
		}
	}
	if err := insertUsers(ctx, i.tx, add, i.now); err != nil {
		return nil, err
	}
	for _, sub := range subs {
		sub.UserID = add[sub.UserID].ID
	}
	return i.insertSubscriptions(ctx, subs)
}

// taken are the names, origins and UUIDs that rows of this Core have.
type taken struct{ names, origins, uuids map[string]bool }

// takenBy looks which names, origins and UUIDs of the users are taken.
func takenBy(ctx context.Context, tx *sql.Tx, users []ImportUser) (taken, error) {
	t := taken{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	var names, origins, uuids []any
	for _, u := range users {
		names, origins = append(names, u.Name), append(origins, u.Origin)
		for _, sub := range u.Subscriptions {
			if sub.UUID != "" {
				uuids = append(uuids, sub.UUID)
			}
		}
	}
	for _, look := range []struct {
		query string
		of    []any
		into  map[string]bool
	}{
		{`SELECT name FROM users WHERE name IN `, names, t.names},
		{`SELECT origin FROM users WHERE origin != '' AND origin IN `, origins, t.origins},
		{`SELECT uuid FROM subscriptions WHERE uuid IN `, uuids, t.uuids},
	} {
		if len(look.of) == 0 {
			continue
		}
		rows, err := tx.QueryContext(ctx, look.query+placeholders(len(look.of), 1), look.of...)
		found, err := collect(rows, err, func(r *sql.Rows) (text string, err error) { return text, r.Scan(&text) })
		if err != nil {
			return t, fmt.Errorf("look for what is there already: %w", err)
		}
		for _, text := range found {
			look.into[text] = true
		}
	}
	return t, nil
}

// stateOf says what becomes of a user, and notes what it takes.
func (i *importing) stateOf(u ImportUser, t taken) coreapi.ImportedPart {
	part := coreapi.ImportedPart{Name: u.Name, State: coreapi.ImportAdded}
	refuse := func(format string, args ...any) coreapi.ImportedPart {
		part.State, part.Reason = coreapi.ImportRefused, fmt.Sprintf(format, args...)
		return part
	}
	if t.origins[u.Origin] {
		part.State = coreapi.ImportPresent
		return part
	}
	if t.names[u.Name] || i.names[u.Name] {
		return refuse("another user has this name; import with --prefix, or rename that one")
	}
	for _, sub := range u.Subscriptions {
		if sub.UUID != "" && (t.uuids[sub.UUID] || i.uuids[sub.UUID]) {
			return refuse("another subscription has the same UUID: both could not be told apart")
		}
	}
	i.names[u.Name] = true
	for _, sub := range u.Subscriptions {
		i.uuids[sub.UUID] = true
	}
	return part
}

// settle makes the row of a subscription.
func (i *importing) settle(ctx context.Context, sub *ImportSubscription) error {
	given := sub.UUID
	sub.Rotate() // which ends credentials: those of the import are set below
	if given != "" {
		sub.UUID = given
	}
	if sub.CreatedAt.IsZero() {
		sub.CreatedAt = stored(i.now)
	}
	sub.GroupID = DefaultGroup
	if sub.Group != "" {
		id, there := i.groups[sub.Group]
		if !there {
			var err error
			if id, err = groupID(ctx, i.tx, sub.Group); err != nil {
				return orNotFound(err, "group", sub.Group)
			}
			i.groups[sub.Group] = id
		}
		sub.GroupID = id
	}
	sub.Credentials = nil
	for n, own := range sub.Own {
		if tag := sub.Tags[n]; tag != "" {
			id, there := i.tags[tag]
			if !there {
				continue // the inbound is refused
			}
			own.ProtocolID = id
		}
		sub.Credentials = append(sub.Credentials, own)
	}
	sub.periodUp, sub.periodDown = sub.BytesUp-sub.UsedUp, sub.BytesDown-sub.UsedDown
	sub.UsedBytes = added(sub.UsedUp, sub.UsedDown)
	if err := sub.settle(i.now, i.zone); err != nil {
		return err
	}
	sub.limited = sub.LimitBytes > 0 && sub.UsedBytes >= sub.LimitBytes
	return nil
}

const importColumns = `id, user_id, uuid, mtproto_secret, enabled, note, bytes_up, bytes_down, carried_up, carried_down, period_start, period_up, period_down,
	expires_at, expires_after, expired, limited, credentials, created_at, used_bytes, period_ends, ` + termColumns

// insertSubscriptions adds subscriptions and returns the groups of those that are let in.
func (i *importing) insertSubscriptions(ctx context.Context, subs []*ImportSubscription) ([]int64, error) {
	if len(subs) == 0 {
		return nil, nil
	}
	first, err := nextID(ctx, i.tx, "subscriptions")
	if err != nil {
		return nil, err
	}
	next := first
	for part := range slices.Chunk(subs, rowsPerInsert) {
		var args []any
		for _, sub := range part {
			credentials, err := encodeCredentials(sub.Credentials)
			if err != nil {
				return nil, err
			}
			start := int64(0)
			if sub.PeriodStart != nil {
				start = millis(*sub.PeriodStart)
			}
			sub.ID = next
			next++
			args = append(args, sub.ID, sub.UserID, sub.UUID, sub.MTProtoSecret, sub.Enabled, sub.Note, sub.BytesUp, sub.BytesDown, sub.BytesUp, sub.BytesDown,
				start, sub.periodUp, sub.periodDown, orNull(sub.ExpiresAt), sub.ExpiresAfterSeconds, sub.expired, sub.limited, credentials, millis(sub.CreatedAt), sub.UsedBytes, orNull(sub.periodEnds))
			args = append(args, sub.values()...)
		}
		if _, err := i.tx.ExecContext(ctx, `INSERT INTO subscriptions (`+importColumns+`) VALUES `+placeholders(strings.Count(importColumns, ",")+1, len(part)), args...); err != nil {
			return nil, fmt.Errorf("add subscriptions: %w", err)
		}
	}
	rows, err := i.tx.QueryContext(ctx, `SELECT DISTINCT group_id FROM subscriptions WHERE id >= ? AND status IN ('`+coreapi.Active+`', '`+coreapi.OnHold+`')`, first)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}
