package corestore

import (
	"fmt"
	"math"
)

// maxSum is where sums of bytes stay: SQLite makes a floating-point number of a greater one,
// which a STRICT table refuses. A sum that stands there is wrong; everything else goes on.
const maxSum = math.MaxInt64

// plus is an SQL expression: the sum of two terms that are not negative, maxSum at the most.
func plus(a, b string) string {
	return fmt.Sprintf("CASE WHEN %[1]s > %[3]d - %[2]s THEN %[3]d ELSE %[1]s + %[2]s END", a, b, int64(maxSum))
}

// added returns the sum of two numbers that are not negative, maxSum at the most.
func added(a, b int64) int64 {
	if a > maxSum-b {
		return maxSum
	}
	return a + b
}
