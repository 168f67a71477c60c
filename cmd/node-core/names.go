package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"

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

// withNames adds the names, where they are shown.
func withNames[Row any](ctx context.Context, s *shared, c *coreapi.Client, rows []Row) (n named[Row], err error) {
	n.rows = rows
	if s.output == cli.JSON || len(rows) == 0 {
		return n, nil
	}
	if n.nodes, err = namesOf(c.Nodes(ctx, nil), func(v coreapi.Node) (int64, string) { return v.ID, v.Name }); err != nil {
		return n, err
	}
	if n.users, err = namesOf(c.Users(ctx, nil), func(v coreapi.User) (int64, string) { return v.ID, v.Name }); err != nil {
		return n, err
	}
	n.inbounds, err = namesOf(c.Protocols(ctx, nil), func(v coreapi.Protocol) (int64, string) { return v.ID, v.Tag })
	return n, err
}

func namesOf[V any](all iter.Seq2[V, error], name func(V) (int64, string)) (map[int64]string, error) {
	names := map[int64]string{}
	for v, err := range all {
		if err != nil {
			return nil, err
		}
		id, text := name(v)
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
