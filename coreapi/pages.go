package coreapi

import (
	"context"
	"iter"
	"maps"
	"net/http"
	"net/url"
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T `json:"items" nullable:"false"`
	// Next is the cursor of the next page.
	Next string `json:"next,omitempty" doc:"The parameter cursor of the next page; missing where this one is the last."`
}

// list returns all rows of a list, page by page. It ends after an error.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		query := maps.Clone(query)
		if query == nil {
			query = url.Values{}
		}
		for {
			page, err := call[Page[T]](ctx, c, http.MethodGet, path, query, nil)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			query.Set("cursor", page.Next)
		}
	}
}

// Collect reads all rows of a list into memory.
func Collect[T any](rows iter.Seq2[T, error]) ([]T, error) {
	all := []T{} // not nil: JSON shows [] then and not null
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}
