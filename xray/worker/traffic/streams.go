package traffic

import "iter"

// streams is a set of streams. Each stream is in one at most: it has the links itself, so that to open
// and to close a stream takes no memory.
type streams struct{ first *stream }

func (l *streams) add(s *stream) {
	s.before, s.next = nil, l.first
	if l.first != nil {
		l.first.before = s
	}
	l.first = s
}

// remove takes out a stream that is in the set.
func (l *streams) remove(s *stream) {
	if s.before != nil {
		s.before.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.before = s.before
	}
	s.before, s.next = nil, nil
}

func (l *streams) empty() bool { return l.first == nil }

func (l *streams) all() iter.Seq[*stream] {
	return func(yield func(*stream) bool) {
		for s := l.first; s != nil; s = s.next {
			if !yield(s) {
				return
			}
		}
	}
}
