package suggest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// DidYouMean ends an error over a name that is unknown with the nearest known one, where
// one is near. name and known are in lower case.
func DidYouMean(name string, known []string, written func(string) string) string {
	if len(known) == 0 {
		return ""
	}
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(name, a), distance(name, b)), strings.Compare(a, b))
	})
	if distance(name, nearest) > max(2, len(name)/3) {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", written(nearest))
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
