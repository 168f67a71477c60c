package corestore

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// LinkPrefix is how the paths of subscriptions' own links begin; the token stands behind it.
const LinkPrefix = "/sub/"

// linkSize is how many bytes of the code a link's token has. 128 bits can't be guessed.
const linkSize = 16

// LinkToken returns the token of the subscription's own link, with which an application fetches
// the subscription's configuration. It is a secret, of letters, digits, "-" and "_": the id in 8
// bytes and a code of a secret of this database, in base64url. RotateLink makes another one.
func (s *Store) LinkToken(sub Subscription) string {
	token := binary.BigEndian.AppendUint64(nil, uint64(sub.ID))
	return base64.RawURLEncoding.EncodeToString(append(token, s.keys.linkCode(sub)...))
}

func (k keyMaker) linkCode(sub Subscription) []byte {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "subscription-link\x00%d\x00%d", sub.ID, sub.linkVersion)
	return mac.Sum(nil)[:linkSize]
}

// SubscriptionByLink finds the subscription of a token, also one that lets nobody in. The error is
// ErrNotFound where the token is none, or one of before a rotation.
func (s *Store) SubscriptionByLink(ctx context.Context, token string) (Subscription, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+linkSize {
		return Subscription{}, fmt.Errorf("subscription with this link: %w", ErrNotFound)
	}
	id := int64(binary.BigEndian.Uint64(raw))
	sub, err := scanSubscription(s.read.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE id = ?`, id))
	if err != nil {
		return Subscription{}, orNotFound(err, "subscription", "with this link")
	}
	if !hmac.Equal(raw[8:], s.keys.linkCode(sub)) {
		return Subscription{}, fmt.Errorf("subscription with this link: %w", ErrNotFound)
	}
	return sub, nil
}

// RotateLink gives the subscription another link of its own. Its credentials stay, so that nobody
// is cut.
func (s *Subscription) RotateLink() { s.linkVersion++ }

// Used returns UsedBytes in two parts, of which applications show the sum beside the limit: client
// to node, and node to client. The first is exact where all nodes count a byte once.
func (s Subscription) Used() (up, down int64) {
	up = min(max(0, s.BytesUp-s.periodUp), s.UsedBytes)
	return up, s.UsedBytes - up
}
