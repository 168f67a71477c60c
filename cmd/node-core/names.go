package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"nodeagent/coreapi"
	"nodeagent/internal/cli"
)

// named are rows, and the names of what they are about. In JSON it is the rows alone, which have ids.
type named[Row any] struct {
	rows                   []Row
	nodes, users, inbounds map[int64]string // by id; none of those that were removed since
}

// MarshalJSON encodes the rows.
func (n named[Row]) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(n.rows)
	return out.Bytes(), err
}

const (
	// mostNames is how many things are asked for one by one. For more users, lists of some are read, and for more
	// nodes or inbounds the whole list.
	mostNames = 50
	// namesPerList is how many ids a request for users may have.
	namesPerList = 500
)

// withNames adds the names, where they are shown. ids returns what a row is about; 0 for none.
func withNames[Row any](ctx context.Context, s *shared, c *coreapi.Client, rows []Row, ids func(Row) (node, user, inbound int64)) (n named[Row], err error) {
	n.rows = rows
	if s.output == cli.JSON || len(rows) == 0 {
		return n, nil
	}
	var nodes, users, inbounds []int64
	for _, row := range rows {
		node, user, inbound := ids(row)
		nodes, users, inbounds = append(nodes, node), append(users, user), append(inbounds, inbound)
	}
	if n.nodes, err = namesOf(nodes, func(id string) (string, error) {
		node, err := c.Node(ctx, id)
		return node.Name, err
	}, func([]int64) iter.Seq2[coreapi.Node, error] { return c.Nodes(ctx, wholeList()) }, func(v coreapi.Node) (int64, string) { return v.ID, v.Name }); err != nil {
		return n, err
	}
	if n.users, err = namesOf(users, func(id string) (string, error) {
		user, err := c.User(ctx, id)
		return user.Name, err
	}, func(ids []int64) iter.Seq2[coreapi.User, error] { return usersOf(ctx, c, ids) }, func(v coreapi.User) (int64, string) { return v.ID, v.Name }); err != nil {
		return n, err
	}
	n.inbounds, err = namesOf(inbounds, func(id string) (string, error) {
		inbound, err := c.Protocol(ctx, id)
		return inbound.Tag, err
	}, func([]int64) iter.Seq2[coreapi.Protocol, error] { return c.Protocols(ctx, wholeList()) }, func(v coreapi.Protocol) (int64, string) { return v.ID, v.Tag })
	return n, err
}

// usersOf returns the users who have the ids, and all users where Core is of an older version, which refuses
// the parameter id.
func usersOf(ctx context.Context, c *coreapi.Client, ids []int64) iter.Seq2[coreapi.User, error] {
	return func(yield func(coreapi.User, error) bool) {
		for part := range slices.Chunk(ids, namesPerList) {
			query := wholeList()
			query.Set("id", strings.Trim(strings.ReplaceAll(fmt.Sprint(part), " ", ","), "[]"))
			users, err := coreapi.Collect(c.Users(ctx, query))
			if p, is := errors.AsType[*coreapi.Problem](err); is && p.Code == coreapi.CodeInvalidRequest {
				c.Users(ctx, wholeList())(yield)
				return
			}
			if err != nil {
				yield(coreapi.User{}, err)
				return
			}
			for _, u := range users {
				if !yield(u, nil) {
					return
				}
			}
		}
	}
}

// namesOf returns the names of ids: of one after the other, or out of a list that has them.
func namesOf[V any](ids []int64, one func(id string) (string, error), many func(ids []int64) iter.Seq2[V, error], name func(V) (int64, string)) (map[int64]string, error) {
	names := map[int64]string{}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id int64) bool { return id == 0 })
	if len(ids) > mostNames {
		for v, err := range many(ids) {
			if err != nil {
				return nil, err
			}
			id, text := name(v)
			names[id] = text
		}
		return names, nil
	}
	for _, id := range ids {
		text, err := one(strconv.FormatInt(id, 10))
		if p, is := errors.AsType[*coreapi.Problem](err); is && p.Status == http.StatusNotFound {
			continue // it was removed since
		}
		if err != nil {
			return nil, err
		}
		names[id] = text
	}
	return names, nil
}

// nameOr returns the name of an id, or the id where it has none.
func nameOr(names map[int64]string, id int64) string {
	if name := names[id]; name != "" {
		return name
	}
	return fmt.Sprint(id)
}
