package suggest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// DidYouMean returns the end of an error text about an unknown name: `; did you mean "x"?`
// with the nearest of the known names, or nothing where none is near. name and known are in
// lower case; written returns a known name as the user writes it.
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

// distance is the Levenshtein distance of a and b, in bytes.
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
