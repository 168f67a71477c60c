package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
)

// UserEdit is a change of a user, who is named by name or id.
type UserEdit struct {
	User string
	Edit func(*User) error
}

// editUsers changes users, each as often as it is named, by a few statements for all of them. It returns
// them by their ids as they are afterwards, and the groups whose nodes are to know of the changes. An edit
// finds a user by the name that an earlier one gave. An error of one edit is a RowError.
func (s *Store) editUsers(ctx context.Context, tx *sql.Tx, edits []UserEdit) (now map[int64]*User, groups []int64, err error) {
	texts, ids := make([]any, 0, len(edits)), []any{}
	for _, e := range edits {
		texts = append(texts, e.User)
		if id := parseID(e.User); id >= 0 {
			ids = append(ids, id)
		}
	}
	before, err := usersBy(ctx, tx, "name", texts)
	if err != nil {
		return nil, nil, err
	}
	byID, err := usersBy(ctx, tx, "id", ids)
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(before, byID)
	names := renaming{owners: map[string]int64{}, left: map[string]bool{}, free: map[string]int{}}
	for id, u := range before {
		names.owners[u.Name] = id
	}
	now = map[int64]*User{}
	for i, e := range edits {
		id, is := names.owners[e.User]
		if !is {
			id = parseID(e.User)
		}
		if before[id] == nil {
			return nil, nil, RowError{"update", i, fmt.Errorf("user %s: %w", e.User, ErrNotFound)}
		}
		if now[id] == nil {
			now[id] = new(*before[id])
			now[id].Contact = maps.Clone(before[id].Contact)
		}
		name := now[id].Name
		if err := e.Edit(now[id]); err != nil {
			return nil, nil, RowError{"update", i, err}
		}
		if err := names.rename(i, id, name, now[id].Name); err != nil {
			return nil, nil, RowError{"update", i, err}
		}
	}
	if err := names.check(ctx, tx); err != nil {
		return nil, nil, err
	}
	if err := storeUsers(ctx, tx, before, now, names.former); err != nil {
		return nil, nil, err
	}
	groups, err = s.enableUsers(ctx, tx, before, now)
	return now, groups, err
}

// usersBy reads the users whose column has one of the values.
func usersBy(ctx context.Context, tx *sql.Tx, column string, values []any) (map[int64]*User, error) {
	found := map[int64]*User{}
	for values := range chunks(values) {
		rows, err := tx.QueryContext(ctx, `SELECT `+userColumns+` FROM users WHERE `+column+` IN `+placeholders(len(values), 1), values...)
		_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
			u, err := scanUser(r)
			found[u.ID] = &u
			return struct{}{}, err
		})
		if err != nil {
			return nil, fmt.Errorf("find users by %s: %w", column, err)
		}
	}
	return found, nil
}

// renaming has the names of users while edits are made, before these are stored.
type renaming struct {
	owners map[string]int64 // of the names of the users who are read
	former []formerName     // in the order of the edits
	left   map[string]bool  // the names of former
	free   map[string]int   // names that nobody may have but a user who is not read, and the edits that give them
}

type formerName struct {
	user int64
	name string
}

// rename notes that an edit gives a user another name.
func (r *renaming) rename(edit int, id int64, from, to string) error {
	if from == to {
		return nil
	}
	if _, taken := r.owners[to]; taken {
		return fmt.Errorf("user %q: %w", to, ErrExists)
	}
	if !r.left[to] {
		r.free[to] = edit
	}
	delete(r.owners, from)
	r.left[from] = true
	r.owners[to] = id
	r.former = append(r.former, formerName{id, from})
	return nil
}

// check returns a RowError where a user who is not read has one of the names.
func (r *renaming) check(ctx context.Context, tx *sql.Tx) error {
	var names []any
	for name := range r.free {
		names = append(names, name)
	}
	taken, err := usersBy(ctx, tx, "name", names)
	if err != nil {
		return err
	}
	var first *User
	for _, u := range taken {
		if first == nil || r.free[u.Name] < r.free[first.Name] {
			first = u
		}
	}
	if first == nil {
		return nil
	}
	return RowError{"update", r.free[first.Name], fmt.Errorf("user %q: %w", first.Name, ErrExists)}
}

var editedUserColumns = []string{"name", "note", "contact", "enabled"}

func editedUserValues(u User) ([]any, error) {
	contact, err := encodeContact(&u)
	return []any{u.Name, u.Note, contact, u.Enabled}, err
}

// storeUsers writes the members of now that are not as before, and the names that users had.
func storeUsers(ctx context.Context, tx *sql.Tx, before, now map[int64]*User, former []formerName) error {
	between := rowSetter{table: "users", columns: []string{"name"}}
	set := rowSetter{table: "users", columns: editedUserColumns}
	given := map[string]bool{}
	for _, u := range now {
		given[u.Name] = true
	}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		old, err := editedUserValues(*before[id])
		if err != nil {
			return err
		}
		values, err := editedUserValues(*now[id])
		if err != nil {
			return err
		}
		set.add(id, old, values)
		if name := before[id].Name; name != now[id].Name && given[name] {
			// One user gets the name of another, and names are unique after each row of a statement. No
			// name of a user has a control character.
			between.add(id, old[:1], []any{fmt.Sprint("\x01", id)})
		}
	}
	nothing := func(*sql.Rows) error { return nil }
	if err := between.store(ctx, tx, nothing); err != nil {
		return err
	}
	if err := set.store(ctx, tx, nothing); err != nil {
		return err
	}
	return keepFormerNames(ctx, tx, former)
}

// enableUsers sets user_enabled on the subscriptions of users that were enabled or disabled. It returns the
// groups whose nodes are to know of it.
func (s *Store) enableUsers(ctx context.Context, tx *sql.Tx, before, now map[int64]*User) (groups []int64, err error) {
	users := map[bool][]any{}
	var all []any
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if u := now[id]; u.Enabled != before[id].Enabled {
			users[u.Enabled] = append(users[u.Enabled], id)
			all = append(all, id)
		}
	}
	concerned := map[int64]bool{}
	note := func(group int64, status string) {
		if served(status) {
			concerned[group] = true
		}
	}
	subs, err := subscriptionsOfUsers(ctx, tx, all)
	if err != nil {
		return nil, err
	}
	if err := s.lockSubscriptions(ctx, tx, "group_id, status", subs, func(r *sql.Rows) error {
		var group int64
		var status string
		err := r.Scan(&group, &status)
		note(group, status)
		return err
	}); err != nil {
		return nil, err
	}
	for enabled, ids := range users {
		for ids := range chunks(ids) {
			rows, err := tx.QueryContext(ctx, `UPDATE subscriptions SET user_enabled = ? WHERE user_id IN `+placeholders(len(ids), 1)+` RETURNING group_id, status`, append([]any{enabled}, ids...)...)
			_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
				var group int64
				var status string
				err := r.Scan(&group, &status)
				note(group, status)
				return struct{}{}, err
			})
			if err != nil {
				return nil, fmt.Errorf("enable or disable the subscriptions of users: %w", err)
			}
		}
	}
	return slices.Sorted(maps.Keys(concerned)), nil
}

// subscriptionsOfUsers returns the ids of the subscriptions of users. It locks none: lockEdits keeps others
// from adding and removing some.
func subscriptionsOfUsers(ctx context.Context, tx *sql.Tx, users []any) (subs []int64, err error) {
	for users := range chunks(users) {
		rows, err := tx.QueryContext(ctx, `SELECT id FROM subscriptions WHERE user_id IN `+placeholders(len(users), 1), users...)
		found, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
		if err != nil {
			return nil, fmt.Errorf("find the subscriptions of users: %w", err)
		}
		subs = append(subs, found...)
	}
	return subs, nil
}
