package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/periods"
)

// SubscriptionEdit is a change of a subscription, which is named by its id or UUID.
type SubscriptionEdit struct {
	Subscription string
	Edit         func(*Subscription) error
}

// editSubscriptions changes subscriptions, each as often as it is named, by a few statements for all of
// them. It returns them by their ids as they are afterwards, and the groups whose nodes are to know of the
// changes. An error of one edit is a RowError.
func (s *Store) editSubscriptions(ctx context.Context, tx *sql.Tx, edits []SubscriptionEdit) (now map[int64]*Subscription, groups []int64, err error) {
	ids, err := subscriptionsNamed(ctx, tx, edits)
	if err != nil {
		return nil, nil, err
	}
	before := make(map[int64]*Subscription, len(ids))
	if err := s.lockSubscriptions(ctx, tx, subscriptionColumns, ids, func(r *sql.Rows) error {
		sub, err := scanSubscription(r)
		before[sub.ID] = &sub
		return err
	}); err != nil {
		return nil, nil, err
	}
	now = make(map[int64]*Subscription, len(before))
	for i, e := range edits {
		if _, is := before[ids[i]]; !is {
			return nil, nil, RowError{"update", i, fmt.Errorf("subscription %s: %w", withoutUUID(e.Subscription), ErrNotFound)}
		}
		if now[ids[i]] == nil {
			now[ids[i]] = new(*before[ids[i]])
		}
		if err := now[ids[i]].apply(e.Edit, s.clock(), s.Timezone()); err != nil {
			return nil, nil, RowError{"update", i, err}
		}
	}
	changes, err := storeSubscriptions(ctx, tx, before, now)
	if err != nil {
		return nil, nil, err
	}
	concerned := map[int64]bool{}
	for id, sub := range now {
		if old, new := before[id].known(), sub.known(); old != new {
			concerned[old.group], concerned[new.group] = true, true
		}
	}
	if err := grantsDue(ctx, tx, idsOf(slices.Sorted(maps.Keys(now)))); err != nil {
		return nil, nil, err
	}
	return now, slices.Sorted(maps.Keys(concerned)), s.tellStatuses(ctx, tx, changes)
}

// apply makes one edit of a subscription, and fits its members to each other.
func (s *Subscription) apply(edit func(*Subscription) error, now time.Time, zone *time.Location) error {
	period := s.Period
	s.turn(now, zone)
	if err := edit(s); err != nil {
		return err
	}
	if period == periods.None && s.Period != periods.None {
		s.Reset(now) // bytes that were moved before there were periods count for none of them
	}
	return s.settle(now, zone)
}

// subscriptionsNamed finds the ids of the subscriptions that edits name. One that is named by an id may
// not be there.
func subscriptionsNamed(ctx context.Context, tx *sql.Tx, edits []SubscriptionEdit) ([]int64, error) {
	ids, named, uuids := make([]int64, len(edits)), map[string]int64{}, []any{}
	for i, e := range edits {
		if ids[i] = parseID(e.Subscription); ids[i] < 0 {
			uuids = append(uuids, e.Subscription)
		}
	}
	for uuids := range chunks(uuids) {
		rows, err := tx.QueryContext(ctx, `SELECT uuid, id FROM subscriptions WHERE uuid IN `+placeholders(len(uuids), 1), uuids...)
		if err := collectMap(rows, err, named); err != nil {
			return nil, fmt.Errorf("find subscriptions by their UUIDs: %w", err)
		}
	}
	for i, e := range edits {
		if ids[i] >= 0 {
			continue
		}
		id, is := named[e.Subscription]
		if !is {
			return nil, RowError{"update", i, fmt.Errorf("subscription %s: %w", withoutUUID(e.Subscription), ErrNotFound)}
		}
		ids[i] = id
	}
	return ids, nil
}

// lockSubscriptions reads columns of subscriptions, and keeps usage from changing them until the commit. It
// takes all of them in the order of their ids, as batches of usage do: in another order a batch and this
// transaction could wait for each other on PostgreSQL.
func (s *Store) lockSubscriptions(ctx context.Context, tx *sql.Tx, columns string, ids []int64, scan func(*sql.Rows) error) error {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	for ids := range chunks(idsOf(ids)) {
		rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM subscriptions WHERE id IN `+placeholders(len(ids), 1)+` ORDER BY id`+s.dialect.forUpdate(), ids...)
		_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) { return struct{}{}, scan(r) })
		if err != nil {
			return fmt.Errorf("read subscriptions to change: %w", err)
		}
	}
	return nil
}

// editedColumns are the columns of a subscription that an edit can change, in the order of editedValues.
var editedColumns = append(strings.Split(termColumns, ", "), "uuid", "mtproto_secret", "enabled", "note", "plan_id", "period_start", "period_up", "period_down",
	"period_ends", "used_bytes", "used_rest", "extra_bytes", "expires_at", "expires_after", "first_used_at", "starts_by", "expired", "limited", "link_version", "credentials")

func (s *Subscription) editedValues() ([]any, error) {
	credentials, err := encodeCredentials(s.Credentials)
	start := int64(0)
	if s.PeriodStart != nil {
		start = millis(*s.PeriodStart)
	}
	return append(s.values(), s.UUID, s.MTProtoSecret, s.Enabled, s.Note, s.PlanID, start, s.periodUp, s.periodDown,
		orNull(s.periodEnds), s.UsedBytes, s.usedRest, s.ExtraBytes,
		orNull(s.ExpiresAt), s.ExpiresAfterSeconds, orNull(s.FirstUsedAt), orNull(s.StartsBy), s.expired, s.limited, s.linkVersion, credentials), err
}

// storeSubscriptions writes the members of now that are not as before, and sets the statuses that follow
// from them.
func storeSubscriptions(ctx context.Context, tx *sql.Tx, before, now map[int64]*Subscription) (changes []statusChange, err error) {
	set := rowSetter{table: "subscriptions", columns: editedColumns, returning: "status"}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		old, err := before[id].editedValues()
		if err != nil {
			return nil, err
		}
		values, err := now[id].editedValues()
		if err != nil {
			return nil, err
		}
		set.add(id, old, values)
	}
	err = set.store(ctx, tx, func(r *sql.Rows) error {
		var id int64
		var status string
		err := r.Scan(&id, &status)
		if from := before[id]; err == nil && from.Status != status {
			now[id].Status = status
			changes = append(changes, statusChange{id, now[id].GroupID, from.Status, status})
		}
		return err
	})
	return changes, err
}

func idsOf(ids []int64) []any {
	all := make([]any, len(ids))
	for i, id := range ids {
		all[i] = id
	}
	return all
}
