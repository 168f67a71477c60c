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

// xray-core's loop requests an OCSP answer (common/ocsp) before it uses the renewed
// certificate that it has read. So that the loop does not wait, a request for a certificate
// that Files manages is answered at once from memory. The stapler sends the request to the
// certificate authority in the background. A new answer makes the loop read once more.
const (
	// ocspTimeout limits a request for which xray-core's loop waits, and ocspPatience limits
	// one in the background. xray-core sets no limit.
	ocspTimeout, ocspPatience = 2 * time.Second, 10 * time.Second
	// askAgain is the shortest time between two requests for one answer. It is longer than
	// newsFor, during which all loops read several times.
	askAgain = 10 * time.Second
	// ocspLife is how long an answer without NextUpdate is used.
	ocspLife    = 24 * time.Hour
	ocspLargest = 1 << 20
	// longestStapling limits the operator's ocspStapling, so that it fits into a Duration.
	longestStapling = 365 * 24 * time.Hour
)

var (
	// errNoStapling is the answer to a request that is not sent.
	errNoStapling = errors.New("no inbound with this certificate has ocspStapling set")
	errAsked      = errors.New("the request is under way")
)

// stapler has the OCSP answers for the certificates that Files manages. mu guards answers and
// the fields of each ocspAnswer. No other lock is taken while it is held.
type stapler struct {
	next http.RoundTripper
	news func(ocspQuestion) // called without a lock when an answer has changed

	mu      sync.Mutex
	answers map[string]*ocspAnswer
}

// ocspQuestion is a request of xray-core to a certificate authority: for an OCSP answer
// (POST), or for the authority's certificate if the file does not have it (GET).
type ocspQuestion struct {
	method, url string
	body        []byte
	contentType string
	leaf        *x509.Certificate // the certificate that the request is about
	every       time.Duration     // the operator's ocspStapling
}

type ocspAnswer struct {
	asking    bool
	at, until time.Time
	body      []byte // nil for none yet
	err       error  // of the last question
}

// answer returns the stored answer. If there is none, or if it is old, answer starts a request
// in the background.
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
	for key, other := range s.answers { // answers for certificates that have been replaced
		if !other.asking && now.After(other.until) {
			delete(s.answers, key)
		}
	}
	s.mu.Unlock()
	if isNews {
		s.news(q)
	}
}

// ask requests an answer that can be stapled. It returns the answer, and the time until which
// the answer is valid.
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

// RoundTrip implements http.RoundTripper for xray-core's requests. A request for a certificate
// that Files does not manage, because it is in the inbound's settings, goes to the certificate
// authority, and xray-core waits for the answer.
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

// concerns tells whether q is about a certificate that Files manages. It sets q.leaf, and
// q.every to the shortest ocspStapling of the inbounds with this certificate, zero for none.
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

// stapled makes the loops read again whose certificates have a new answer.
func (c *Files) stapled(q ocspQuestion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pair := range c.pairs {
		if pair.stapling > 0 && pair.asks(&q) {
			pair.renewedLocked()
		}
	}
}

// asks tells whether q is about the pair's certificate.
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

// staplesEvery returns how often the pair's answer is requested, zero for never.
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

// leafOf returns the first certificate of a PEM text, or nil.
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

// cancelingBody cancels the context of its request when it is closed.
type cancelingBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b cancelingBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
