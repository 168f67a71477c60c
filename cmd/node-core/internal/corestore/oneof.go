package corestore

import "slices"

// maxListed is how many ids a statement names one by one. A list of 10,000 takes longer to parse than
// reading as many rows.
const maxListed = 1000

// idSet are ids that a query asks for.
type idSet []int64 // in order, each once

func oneOf(ids []int64) idSet { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// condition is a condition that a column has one of the ids, with the arguments args. Where the ids are
// many it is a range that has other ids too: the caller leaves those out by has.
func (s idSet) condition(column string) string {
	switch {
	case len(s) == 0:
		return "1 = 0"
	case len(s) > maxListed:
		return column + " BETWEEN ? AND ?"
	}
	return column + " IN " + placeholders(len(s), 1)
}

func (s idSet) args() (args []any) {
	if len(s) > maxListed {
		return []any{s[0], s[len(s)-1]}
	}
	for _, id := range s {
		args = append(args, id)
	}
	return args
}

func (s idSet) has(id int64) bool {
	_, found := slices.BinarySearch(s, id)
	return found
}
