package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"nodeagent/coreapi"
	"nodeagent/internal/secret"
)

const (
	requestTimeout = 15 * time.Second // of one try, with the answer
	maxAnswer      = 64 << 10         // bytes of an answer that are read, to use the connection again
	maxHeader      = 64 << 10         // bytes of an answer's header
	maxRetryAfter  = time.Hour
	keyPrefix      = "whsec_"
	leastKey       = 24 // bytes, as the specification says
	mostKey        = 64
)

// Headers of the specification, and one of ours.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
	headerKind      = "Node-Core-Event"
)

// ParseKey reads the key of signatures, in the form of the specification.
func ParseKey(text secret.Text) ([]byte, error) {
	encoded, is := strings.CutPrefix(strings.TrimSpace(text.Reveal()), keyPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !is || err != nil || len(key) < leastKey || len(key) > mostKey {
		return nil, fmt.Errorf("the secret is not %s and %d to %d bytes in base64; make one with: echo %s$(openssl rand -base64 32)", keyPrefix, leastKey, mostKey, keyPrefix)
	}
	return key, nil
}

// CheckURL returns an error for an address that events are not sent to.
func CheckURL(address string, allowHTTP bool) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("read the address of a webhook %q: want https://HOST[:PORT]/PATH", secret.URL(address))
	case u.Scheme == "http" && !allowHTTP:
		return errors.New("the address of the webhook has no TLS: events have names of users and nodes; want https://, or start Core with --webhook-http")
	}
	return nil
}

// newClient makes the client of all webhooks.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxHeader
	transport.MaxConnsPerHost = 8
	return &http.Client{
		Transport: transport, Timeout: requestTimeout,
		// The event is for the address that the operator has named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// refused is an answer that is no success.
type refused struct {
	status     int
	retryAfter time.Duration // 0 for nothing said
}

func (r refused) Error() string {
	if r.status/100 == 3 {
		return fmt.Sprintf("the answer is a redirect (%d), which is not followed: name the right address", r.status)
	}
	return fmt.Sprintf("the answer is %d %s", r.status, http.StatusText(r.status))
}

// signature is over the id, the time and the body.
func signature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// post sends an event once.
func post(ctx context.Context, client *http.Client, address string, key []byte, id string, e coreapi.Event, now time.Time) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %d: %w", e.ID, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address can't be read")
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "node-core")
	r.Header.Set(headerID, id)
	r.Header.Set(headerTimestamp, timestamp)
	r.Header.Set(headerSignature, signature(key, id, timestamp, body))
	r.Header.Set(headerKind, string(e.Kind))
	resp, err := client.Do(r)
	if failure, is := errors.AsType[*url.Error](err); is {
		return withoutAddress(failure)
	} else if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // the status alone counts
		return nil
	}
	no := refused{status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		no.retryAfter = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	return no
}

// withoutAddress leaves the address out of an error: its path may be a secret.
func withoutAddress(err *url.Error) error {
	if err.Timeout() {
		return fmt.Errorf("no answer within %s", requestTimeout)
	}
	return err.Err
}
