package adminapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

var errNoCursor = errors.New("the cursor is not one that this API has given out")

// PageIn are the parameters of every list.
type PageIn struct {
	Cursor string `query:"cursor" maxLength:"1000" doc:"The member next of the page before; without it, the first page."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many rows the page has at most."`
}

// list returns which rows of a table the page has. sort is the name of an order; with a "-"
// before it, the greatest is first.
func (p PageIn) list(sort string) (corestore.List, error) {
	l := corestore.List{Sort: sort, Limit: p.Limit}
	if p.Cursor == "" {
		return l, nil
	}
	after, err := readCursor(p.Cursor)
	if err != nil {
		return l, badInput{err}
	}
	if after.Sort != sort {
		return l, badInput{errors.New("the cursor is of another order; begin without it")}
	}
	l.After = after
	return l, nil
}

// readCursor reads a cursor, which only this API makes. Nothing depends on that: a cursor is a
// place in a list, and its caller may read the whole list.
func readCursor(cursor string) (*corestore.Position, error) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, errNoCursor
	}
	var after *corestore.Position
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // ids and sums are greater than a float64 can hold
	if err := decoder.Decode(&after); err != nil || after == nil {
		return nil, errNoCursor
	}
	switch v := after.Value.(type) {
	case nil, string:
	case json.Number:
		if after.Value, err = v.Int64(); err != nil {
			return nil, errNoCursor
		}
	default:
		return nil, errNoCursor
	}
	return after, nil
}

// pageOf makes the answer of a list.
func pageOf[T any](rows []T, next *corestore.Position, err error) (coreapi.Page[T], error) {
	page := coreapi.Page[T]{Items: rows}
	if err != nil || next == nil {
		return page, err
	}
	raw, err := json.Marshal(next)
	page.Next = base64.RawURLEncoding.EncodeToString(raw)
	return page, err
}
