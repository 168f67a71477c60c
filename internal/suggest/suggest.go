package suggest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// DidYouMean returns the end of an error text about an unknown name: `; did you mean "x"?`
// with the nearest of the known names, or nothing where none is near. name and known are in
// lower case; written returns a known name as the user writes it.
func DidYouMean(name string, known []string, written func(string) string) string {
	if len(known) == 0 {
		return ""
	}
	distance := func(to string) int { return levenshtein.Distance(name, to, nil) }
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), strings.Compare(a, b))
	})
	if distance(nearest) > max(2, len(name)/3) {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", written(nearest))
}
