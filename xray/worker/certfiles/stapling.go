package certfiles

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// xray-core's loop asks for an OCSP answer (common/ocsp) before it takes the renewed
// certificate that it has read. So a question for a certificate of ours is answered
// with what is there already, and asked in the background; the answer is news, with
// which the loop reads once more.
const (
	// ocspTimeout bounds a question, which xray-core leaves unbounded: one on which
	// its loop waits, and one in the background.
	ocspTimeout, ocspPatience = 2 * time.Second, 10 * time.Second
	// askAgain is how long an answer is not asked for again: longer than newsFor, in
	// which all loops read several times.
	askAgain = 10 * time.Second
	// ocspLife is how long an answer that names no end of its own is handed out.
	ocspLife    = 24 * time.Hour
	ocspLargest = 1 << 20
	// longestStapling keeps what an operator sets within what a Duration holds.
	longestStapling = 365 * 24 * time.Hour
)

var (
	// errNoStapling is why a question for an OCSP answer is not asked.
	errNoStapling = errors.New("no inbound with this certificate has ocspStapling set")
	errAsked      = errors.New("it is being asked for")
)

// stapler has the OCSP answers for certificates that are watched.
type stapler struct {
	next http.RoundTripper
	news func(ocspQuestion) // an answer is another one than before

	mu      sync.Mutex
	answers map[string]*ocspAnswer
}

// ocspQuestion is one that xray-core asks of a certificate authority: for an answer,
// or for its own certificate where a file does not have it.
type ocspQuestion struct {
	method, url string
	body        []byte
	contentType string
	leaf        *x509.Certificate // of ours, for which it is
	every       time.Duration     // as the operator has it
}

type ocspAnswer struct {
	asking    bool
	at, until time.Time
	body      []byte // nil for none yet
	err       error  // of the last question
}

// answer returns what is there, and asks where that is nothing or old.
func (s *stapler) answer(q ocspQuestion) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, now := q.method+" "+q.url+" "+string(q.body), time.Now()
	a := s.answers[key]
	if a == nil {
		a = &ocspAnswer{err: errAsked}
		s.answers[key] = a
	}
	if !a.asking && (a.body == nil || now.Sub(a.at) >= max(askAgain, q.every/2)) {
		a.asking = true
		go s.renew(a, q)
	}
	if a.body == nil || now.After(a.until) {
		return nil, fmt.Errorf("no OCSP answer yet: %w", a.err)
	}
	return a.body, nil
}

func (s *stapler) renew(a *ocspAnswer, q ocspQuestion) {
	body, until, err := s.ask(q)
	s.mu.Lock()
	now := time.Now()
	a.asking, a.err = false, err
	isNews := err == nil && !bytes.Equal(body, a.body)
	if err == nil {
		a.at, a.until, a.body = now, until, body
	} else if a.body == nil {
		a.until = now.Add(ocspLife)
	}
	for key, other := range s.answers { // of certificates that were renewed
		if !other.asking && now.After(other.until) {
			delete(s.answers, key)
		}
	}
	s.mu.Unlock()
	if isNews {
		s.news(q)
	}
}

// ask gets an answer that can be stapled, and until when.
func (s *stapler) ask(q ocspQuestion) (body []byte, until time.Time, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), ocspPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, q.method, q.url, bytes.NewReader(q.body))
	if err != nil {
		return nil, until, err
	}
	if q.contentType != "" {
		request.Header.Set("Content-Type", q.contentType)
	}
	response, err := s.next.RoundTrip(request)
	if err != nil {
		return nil, until, fmt.Errorf("ask %s: %w", q.url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, until, fmt.Errorf("ask %s: %s", q.url, response.Status)
	}
	if body, err = io.ReadAll(io.LimitReader(response.Body, ocspLargest)); err != nil {
		return nil, until, fmt.Errorf("ask %s: %w", q.url, err)
	}
	now := time.Now()
	if q.method == http.MethodGet {
		_, err = x509.ParseCertificate(body)
		return body, now.Add(ocspLife), err
	}
	parsed, err := ocsp.ParseResponseForCert(body, q.leaf, nil)
	switch {
	case err != nil:
		return nil, until, fmt.Errorf("read the answer of %s: %w", q.url, err)
	case parsed.NextUpdate.IsZero():
		return body, now.Add(ocspLife), nil
	case now.After(parsed.NextUpdate):
		return nil, until, fmt.Errorf("the answer of %s is over since %s", q.url, parsed.NextUpdate.UTC().Format(time.RFC3339))
	}
	return body, parsed.NextUpdate, nil
}

// RoundTrip is how xray-core asks. What it asks for certificates that are not ours,
// which stand in the inbound itself, it waits for.
func (c *Files) RoundTrip(r *http.Request) (*http.Response, error) {
	q := ocspQuestion{method: r.Method, url: r.URL.String(), contentType: r.Header.Get("Content-Type")}
	if r.Body != nil {
		var err error
		q.body, err = io.ReadAll(r.Body)
		if err = errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(q.body))
	}
	isOurs := c.concerns(&q)
	if isOurs && q.every > 0 {
		body, err := c.stapler.answer(q)
		if err != nil {
			return nil, err
		}
		return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}, nil
	}
	if isOurs || !c.stapling.Load() {
		return nil, errNoStapling
	}
	ctx, cancel := context.WithTimeout(r.Context(), ocspTimeout)
	response, err := c.stapler.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	response.Body = cancelingBody{response.Body, cancel}
	return response, nil
}

// concerns tells whether a question is for a certificate of ours, and fills in which,
// and how often its inbounds want the answer, zero for never.
func (c *Files) concerns(q *ocspQuestion) (isOurs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pair := range c.pairs {
		if !pair.asks(q) {
			continue
		}
		isOurs, q.leaf = true, pair.leaf
		if every := pair.stapling; every > 0 && (q.every == 0 || every < q.every) {
			q.every = every
		}
	}
	return isOurs
}

// stapled lets the loops read again that have a new answer.
func (c *Files) stapled(q ocspQuestion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pair := range c.pairs {
		if pair.stapling > 0 && pair.asks(&q) {
			pair.tellNews()
		}
	}
}

// asks tells whether xray-core asks this for the pair's certificate.
func (p *filePair) asks(q *ocspQuestion) bool {
	if p.leaf == nil {
		return false
	}
	if q.method == http.MethodGet {
		return slices.Contains(p.leaf.IssuingCertificateURL, q.url)
	}
	request, err := ocsp.ParseRequest(q.body)
	return err == nil && slices.Contains(p.leaf.OCSPServer, q.url) && request.SerialNumber.Cmp(p.leaf.SerialNumber) == 0
}

// staplesEvery is how often the pair's answer is asked for, zero for never.
func (p *filePair) staplesEvery() time.Duration {
	if p.leaf == nil || len(p.leaf.OCSPServer) == 0 {
		return 0
	}
	return p.stapling
}

// staplingInterval is xray-core's ocspStapling, which is in seconds.
func staplingInterval(seconds uint64) time.Duration {
	return time.Duration(min(seconds, uint64(longestStapling/time.Second))) * time.Second
}

// leafOf is nil for what is no certificate.
func leafOf(certificate []byte) *x509.Certificate {
	for {
		var block *pem.Block
		if block, certificate = pem.Decode(certificate); block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return leaf
		}
	}
}

// cancelingBody ends the time of its request.
type cancelingBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b cancelingBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
