package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden stands in the place of every secret, also of an empty one.
const hidden = "(hidden)"

// Text is a secret text: a key, a one-time code, a password. Two Texts can be compared, and
// the zero Text is no secret at all.
type Text string

// Reveal returns the secret itself.
func (t Text) Reveal() string { return string(t) }

// String hides the secret.
func (Text) String() string { return hidden }

// GoString hides the secret from %#v.
func (Text) GoString() string { return hidden }

// Format hides the secret from every verb of package fmt.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret from log/slog.
func (Text) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret from encoders of text.
func (Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON hides the secret from encoders of JSON.
func (Text) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
