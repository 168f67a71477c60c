package process

import (
	"regexp"
	"strings"
	"sync"

	"nodeagent/telemt/service"
)

// keptLines is how much of telemt's output is kept to explain a failure.
const keptLines = 40

// secretDigits are what may be a secret, or a link's form of one, in a line.
var secretDigits = regexp.MustCompile(`[0-9A-Fa-f]{32,}`)

const hidden = "(hidden)"

// Redact returns the text without what may be a secret of hex digits.
func Redact(text string) string { return secretDigits.ReplaceAllString(text, hidden) }

// Output is the last of what a telemt said, without secrets.
type Output struct {
	secrets *strings.Replacer // those that are not of hex digits

	mu    sync.Mutex
	lines []string
	count int // of all lines so far
}

func newOutput(of service.Desired) *Output {
	var secrets []string
	for _, u := range of.Upstreams {
		secrets = append(secrets, u.Password, u.URL)
	}
	secrets = append(secrets, secretsIn(of.Advanced)...)
	var pairs []string
	for _, secret := range secrets {
		if secret != "" {
			pairs = append(pairs, secret, hidden)
		}
	}
	return &Output{secrets: strings.NewReplacer(pairs...)}
}

// secretKey is how telemt's keys for secrets are called, as password, auth_header
// and url, which has one in it.
var secretKey = regexp.MustCompile(`(?i)pass|secret|token|key|auth|url`)

// secretsIn are the texts in a tree of telemt's own keys that may be secrets.
func secretsIn(tree any) []string {
	var found []string
	switch v := tree.(type) {
	case map[string]any:
		for name, value := range v {
			if text, is := value.(string); is && secretKey.MatchString(name) {
				found = append(found, text)
			}
			found = append(found, secretsIn(value)...)
		}
	case []any:
		for _, value := range v {
			found = append(found, secretsIn(value)...)
		}
	}
	return found
}

// add keeps a line and returns it without secrets.
func (o *Output) add(line string) string {
	line = o.secrets.Replace(Redact(line))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	o.count++
	if len(o.lines) > keptLines {
		o.lines = o.lines[1:]
	}
	return line
}

// Position is a place in the output, to ask later what came after it.
func (o *Output) Position() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

func (o *Output) after(position int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(o.count-position, len(o.lines))
	return append([]string(nil), o.lines[len(o.lines)-n:]...)
}

// RejectionAfter is telemt's word, after the mark, for a configuration that it did not
// take while it runs; empty where there is none.
func (o *Output) RejectionAfter(position int) string {
	for _, line := range o.after(position) {
		if _, words, is := strings.Cut(line, "config reload: "); is && strings.Contains(line, "ERROR") {
			return words
		}
	}
	return ""
}

// ExitReason are what a telemt that ended said of its end: its fatal line on
// standard error, else its errors, else the last line.
func (o *Output) ExitReason() string {
	lines := o.after(0)
	var failures []string
	for _, line := range lines {
		if words, is := strings.CutPrefix(line, "[telemt] "); is {
			return words
		}
		if _, words, is := strings.Cut(line, "ERROR "); is {
			failures = append(failures, words)
		}
	}
	switch {
	case len(failures) > 0:
		return strings.Join(failures, "; ")
	case len(lines) > 0:
		return lines[len(lines)-1]
	}
	return "it said nothing"
}
