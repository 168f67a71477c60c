package worker

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"nodeagent/xray"
)

// authority signs certificates and answers for them.
type authority struct {
	tls.Certificate
	life  time.Duration // of an answer
	asked atomic.Int32
	hold  chan struct{} // where there is one, answers wait for its end
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	own := newRenewal(t, x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, nil)
	pair, err := tls.X509KeyPair(own.certificate, own.key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{Certificate: pair, life: time.Hour}
}

func (a *authority) answer(question []byte) ([]byte, error) {
	request, err := ocsp.ParseRequest(question)
	if err != nil {
		return nil, err
	}
	return ocsp.CreateResponse(a.Leaf, a.Leaf, ocsp.Response{
		Status: ocsp.Good, SerialNumber: request.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(a.life),
	}, a.PrivateKey.(crypto.Signer))
}

// serve returns the address at which it answers.
func (a *authority) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if a.hold != nil {
			select {
			case <-a.hold:
			case <-r.Context().Done():
				return
			}
		}
		question, err := io.ReadAll(r.Body)
		if err == nil {
			question, err = a.answer(question)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(question)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// awaitStaple fails the test where new handshakes have no good answer soon.
func awaitStaple(t *testing.T, port int, a *authority, want renewal) {
	t.Helper()
	for deadline := time.Now().Add(lookWithin); ; time.Sleep(20 * time.Millisecond) {
		state, err := handshake(port)
		if err == nil {
			_, err = ocsp.ParseResponseForCert(state.OCSPResponse, want.leaf, a.Leaf)
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no staple within %s: %v", lookWithin, err)
		}
	}
}

// A certificate with ocspStapling is renewed as others are, does not wait for its
// answer, and has it when that comes. A broken one is told.
func TestStapledCertificateIsRenewed(t *testing.T) {
	r, dir, port, a := newRig(t), t.TempDir(), freePort(t), newAuthority(t)
	url := a.serve(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func() renewal {
		c := newRenewal(t, x509.Certificate{OCSPServer: []string{url}}, &a.Certificate)
		putFile(t, key, c.key)
		putFile(t, certificate, c.certificate)
		return c
	}
	first := renew()
	r.apply(r.secured(port, certificate, key, `,"ocspStapling":3600`))
	awaitStaple(t, port, a, first)

	second := renew()
	awaitHandshake(t, port, "renewed", second)
	awaitStaple(t, port, a, second)

	putFile(t, certificate, []byte("garbage"))
	r.eventually("the broken one is told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.failed, func(f xray.Failure) bool { return strings.Contains(f.Message, "the one before goes on") })
	})
	awaitStaple(t, port, a, second)
	if n := a.asked.Load(); n != 2 {
		t.Errorf("the authority was asked %d times, want once for each certificate", n)
	}
}

func TestRenewalWaitsForNoAnswer(t *testing.T) {
	r, dir, port, a := newRig(t), t.TempDir(), freePort(t), newAuthority(t)
	a.hold = make(chan struct{})
	url := a.serve(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func() renewal {
		c := newRenewal(t, x509.Certificate{OCSPServer: []string{url}}, &a.Certificate)
		putFile(t, key, c.key)
		putFile(t, certificate, c.certificate)
		return c
	}
	renew()
	r.apply(r.secured(port, certificate, key, `,"ocspStapling":3600`))
	second := renew()
	awaitHandshake(t, port, "renewed", second)
	if state, err := handshake(port); err != nil || len(state.OCSPResponse) > 0 {
		t.Errorf("%v, a staple of %d bytes before there is an answer", err, len(state.OCSPResponse))
	}
	close(a.hold)
	awaitStaple(t, port, a, second)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What is there is answered at once, asked for anew in time, kept where that fails and
// forgotten when its time is over.
func TestStaplerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		leaf := newRenewal(t, x509.Certificate{OCSPServer: []string{"http://ca.test"}}, &a.Certificate).leaf
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
			body, err := a.answer(question)
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
		pass(a.life + time.Minute)
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
				renewed := newRenewal(t, x509.Certificate{OCSPServer: test.server}, nil)
				pair := &filePair{
					certificate: renewed.certificate, key: renewed.key, leaf: renewed.leaf, stapling: test.stapling,
					since: time.Now(), changed: make(chan struct{}), built: true,
				}
				c := &certificateFiles{watch: unwatched(), pairs: map[string]*filePair{"1": pair}}
				var reads atomic.Int32
				go func() { // one: who waits for a mutex stops the clock
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
				adopted{{c, "1", pair}}.gone()
			})
		})
	}
}
