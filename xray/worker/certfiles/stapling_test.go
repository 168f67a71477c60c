package certfiles

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/filewatch"
	"nodeagent/xray/xraytest"

	"golang.org/x/crypto/ocsp"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An OCSP response that is there is given at once. It is asked for anew in time, kept where that
// fails, and forgotten when its time is over.
func TestStaplerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := xraytest.NewAuthority(t)
		leaf := xraytest.NewRenewal(t, x509.Certificate{OCSPServer: []string{"http://ca.test"}}, &a.Certificate).Leaf
		question, err := ocsp.CreateRequest(leaf, a.Leaf, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := ocspQuestion{method: http.MethodPost, url: "http://ca.test", body: question, leaf: leaf, every: 10 * time.Minute}
		var asked, news atomic.Int32
		var garbage, broken atomic.Bool
		s := &stapler{answers: map[string]*ocspAnswer{}, news: func(ocspQuestion) { news.Add(1) }}
		s.next = roundTrip(func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			time.Sleep(5 * time.Second)
			body, err := a.Answer(question)
			switch {
			case broken.Load():
				err = errors.New("no route")
			case garbage.Load():
				body = []byte("<html>sorry</html>")
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, err
		})
		look := func(what string, want bool, wantAsked, wantNews int32) {
			t.Helper()
			start := time.Now()
			if _, err := s.answer(q); (err == nil) != want || time.Since(start) > 0 {
				t.Errorf("%s: %v after %s", what, err, time.Since(start))
			}
			synctest.Wait()
			if asked, news := asked.Load(), news.Load(); asked != wantAsked || news != wantNews {
				t.Errorf("%s: asked %d times, %d news; want %d, %d", what, asked, news, wantAsked, wantNews)
			}
		}
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		garbage.Store(true)
		look("the first look asks", false, 1, 0)
		look("the next waits for the same answer", false, 1, 0)
		pass(6 * time.Second)
		garbage.Store(false)
		look("garbage is none", false, 2, 0)
		pass(6 * time.Second)
		look("the answer", true, 2, 1)
		pass(6 * time.Minute)
		broken.Store(true)
		look("it is old", true, 3, 1)
		pass(6 * time.Second)
		look("nobody has a newer one", true, 4, 1)
		pass(6 * time.Second)
		broken.Store(false)
		look("the next try", true, 5, 1)
		pass(6 * time.Second)
		look("the newer one", true, 5, 2)
		broken.Store(true)
		pass(a.Life + time.Minute)
		look("its time is over", false, 6, 2)
		pass(6 * time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.answers) > 0 {
			t.Errorf("%d answers are kept", len(s.answers))
		}
	})
}

// The loop of a certificate reads again when it is time for another answer, and ends
// with the inbound.
func TestLoopReadsForStaples(t *testing.T) {
	for _, test := range []struct {
		name     string
		server   []string
		stapling time.Duration
		reads    bool
	}{
		{"stapling", []string{"http://ca.test"}, time.Hour, true},
		{"no stapling", []string{"http://ca.test"}, 0, false},
		{"nobody to ask", nil, time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				renewed := xraytest.NewRenewal(t, x509.Certificate{OCSPServer: test.server}, nil)
				pair := &filePair{
					certificate: renewed.Certificate, key: renewed.Key, leaf: renewed.Leaf, stapling: test.stapling,
					since: time.Now(), changed: make(chan struct{}), built: true,
				}
				c := &Files{watch: filewatch.Unwatched(), pairs: map[string]*filePair{"1": pair}}
				var reads atomic.Int32
				go func() { // one: a goroutine that waits for a mutex stops the clock
					for {
						c.awaitNews(pair)
						reads.Add(1)
						time.Sleep(time.Second)
					}
				}()
				time.Sleep(time.Minute)
				before := reads.Load()
				if before < 5 {
					t.Errorf("%d reads of what is new", before)
				}
				time.Sleep(test.stapling / 2)
				if n := reads.Load() - before; n > 0 {
					t.Errorf("%d reads of nothing", n)
				}
				time.Sleep(time.Hour)
				if n := reads.Load() - before; n >= 5 != test.reads {
					t.Errorf("%d reads after an hour", n)
				}
				Adopted{{c, "1", pair}}.Gone()
			})
		})
	}
}
