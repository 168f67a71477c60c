package nodeapi

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"nodeagent/coreclient/wire"
)

// sums returns the number of stored usage rows and their bytes.
func (c *core) sums() (rows int, up, down int64) {
	c.t.Helper()
	usage, err := c.store.Usage(c.t.Context(), 10_000)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, row := range usage {
		up, down = up+row.BytesUp, down+row.BytesDown
	}
	return len(usage), up, down
}

const usageBody = `{"entries":[

	{"userId":1,"subscriptionId":null,"nodeProtocolId":1,"bytesUp":10,"bytesDown":20,"recordedAt":"2026-01-02T03:04:00Z"},
	{"userId":1,"nodeProtocolId":2,"bytesUp":1,"bytesDown":2,"recordedAt":"2026-01-02T03:04:00Z"}]}`

func TestABatchCountsOnce(t *testing.T) {
	c := newCore(t)
	var together sync.WaitGroup
	for range 8 {
		together.Go(func() {
			if a := c.post(wire.PathUsage, "k", usageBody); a.status != http.StatusOK || a.body != `{"ok":true}`+"\n" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	together.Wait()
	c.close()
	c.open() // also after a restart
	c.want(http.StatusOK, c.post(wire.PathUsage, "k", usageBody), nil)
	if rows, up, down := c.sums(); rows != 2 || up != 11 || down != 22 {
		t.Errorf("%d rows, %d up, %d down", rows, up, down)
	}
	// The same key on another route is another batch.
	c.want(http.StatusOK, c.post(wire.PathOutboundUsage, "k", `{"items":[{"tag":"direct","bytesUp":5,"bytesDown":6}]}`), nil)
	// Another part of the same minute is added.
	c.want(http.StatusOK, c.post(wire.PathUsage, "k2", usageBody), nil)
	if rows, up, _ := c.sums(); rows != 2 || up != 22 {
		t.Errorf("%d rows, %d up", rows, up)
	}
	outbounds, err := c.store.Outbounds(t.Context(), c.node)
	if err != nil || len(outbounds) != 1 || outbounds[0].TrafficBytesUp != 5 || outbounds[0].TrafficBytesDown != 6 {
		t.Errorf("outbounds %+v, %v", outbounds, err)
	}
}

// Usage of a removed user and subscription is stored, and a row with a time far away is
// flagged.
func TestUsageOfRemovedSubscription(t *testing.T) {
	c := newCore(t)
	c.want(http.StatusOK, c.post(wire.PathUsage, "", `{"entries":[
		{"userId":77,"subscriptionId":99,"nodeProtocolId":1,"bytesUp":1,"bytesDown":2,"recordedAt":"2002-01-02T03:04:00Z"}]}`), nil)
	usage, err := c.store.Usage(t.Context(), 10)
	if err != nil || len(usage) != 1 || !usage[0].Flagged || *usage[0].SubscriptionID != 99 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}

func TestSubscriptionCounters(t *testing.T) {
	c := newCore(t)
	user, err := c.store.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := c.store.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c.want(http.StatusOK, c.post(wire.PathUsage, fmt.Sprint("k", i), fmt.Sprintf(`{"entries":[
			{"userId":%d,"subscriptionId":%d,"nodeProtocolId":1,"bytesUp":1,"bytesDown":2,"recordedAt":"2026-01-02T03:0%d:00Z"},
			{"userId":%d,"subscriptionId":%d,"nodeProtocolId":2,"bytesUp":10,"bytesDown":20,"recordedAt":"2026-01-02T03:0%d:00Z"}]}`,
			user.ID, sub.ID, i, user.ID, sub.ID, i)), nil)
	}
	subs, err := c.store.Subscriptions(t.Context())
	if err != nil || subs[0].BytesUp != 33 || subs[0].BytesDown != 66 {
		t.Errorf("subscriptions %+v, %v", subs, err)
	}
}
