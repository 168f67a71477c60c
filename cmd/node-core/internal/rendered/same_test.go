package rendered

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
)

// world is a database on which random edits are made.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	store  *corestore.Store
	users  []corestore.User
	groups []corestore.Group
	nodes  []corestore.Node
	names  int
}

func newWorld(t *testing.T, seed uint64) *world {
	store, err := corestore.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), store: store}
	for range 3 {
		user, err := store.AddUser(t.Context(), w.name())
		w.must(err)
		w.users = append(w.users, user)
	}
	for range 3 {
		node, _, err := store.AddNode(t.Context(), w.name(), "", time.Hour)
		w.must(err)
		w.nodes = append(w.nodes, node)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) name() string {
	w.names++
	return fmt.Sprintf("name <%d>", w.names)
}

// inbounds are inbounds of every form that a client has.
var inbounds = []corestore.Protocol{
	{Protocol: "vless", Port: 1, Config: []byte(`{"protocol":"vless","port":1,"settings":{"decryption":"none"},"streamSettings":{"security":"tls"}}`)},
	{Protocol: "vmess", Port: 2, Config: []byte(`{"protocol":"vmess","port":2}`)},
	{Protocol: "trojan", Port: 3, Config: []byte(`{"protocol":"trojan","port":3,"settings":null,"sniffing":{"enabled":false}}`)},
	{Protocol: "shadowsocks", Port: 4, Config: []byte(`{"protocol":"shadowsocks","port":4,"settings":{"method":"2022-blake3-aes-128-gcm","clients":[{"password":"old"}]}}`)},
	{Protocol: "socks", Port: 5, Config: []byte(`{"protocol":"socks","port":5,"settings":{"udp":true}}`)},
	{Protocol: "hysteria", Port: 6, Config: []byte(`{"protocol":"hysteria","port":6,"note":"<&>"}`)},
	{Protocol: "wireguard", Port: 7, Config: []byte(`{"protocol":"wireguard","port":7,"settings":{"secretKey":"k","peers":[{"publicKey":"fixed"}]}}`)},
	{Protocol: "dokodemo-door", Port: 8, Config: []byte(`{"protocol":"dokodemo-door","port":8,"settings":{"address":"192.0.2.1"}}`)},
	{Protocol: "mtproto", Port: 9, Config: []byte(`{"port":9,"modes":{"secure":true,"classic":false,"tls":false}}`)},
	// With a list of clients beside Core's: such a configuration is made by Build.
	{Protocol: "http", Port: 10, Config: []byte(`{"protocol":"http","port":10,"settings":{"clients":[{"email":"somebody"}]}}`)},
}

// edit makes one random edit, and says which.
func (w *world) edit() string {
	ctx, r := w.t.Context(), w.rng
	subs, err := w.store.Subscriptions(ctx)
	w.must(err)
	pick := r.IntN(100)
	switch {
	case pick < 30 || len(subs) == 0:
		sub := corestore.Subscription{UserID: w.users[r.IntN(len(w.users))].ID}
		sub.GroupID = w.group()
		sub.LimitIPs = int64(r.IntN(3))
		_, _, err := w.store.InsertSubscription(ctx, sub)
		w.must(err)
		return "add a subscription"
	case pick < 40:
		_, err := w.store.RemoveSubscription(ctx, fmt.Sprint(subs[r.IntN(len(subs))].ID))
		w.must(err)
		return "remove a subscription"
	case pick < 55:
		return w.editSubscription(subs[r.IntN(len(subs))])
	case pick < 60:
		_, _, err := w.store.EditUser(ctx, w.users[r.IntN(len(w.users))].Name, func(u *corestore.User) error {
			u.Enabled = !u.Enabled
			return nil
		})
		w.must(err)
		return "enable or disable a user"
	case pick < 63:
		var add []corestore.NewUser
		for range 1 + r.IntN(300) {
			add = append(add, corestore.NewUser{User: corestore.User{Name: w.name()}, Subscriptions: make([]corestore.Subscription, 1+r.IntN(2))})
		}
		_, err := w.store.BulkUsers(ctx, add, nil)
		w.must(err)
		return "add many users"
	case pick < 80:
		return w.editLayout()
	case pick < 86:
		g, err := w.store.AddGroup(ctx, corestore.Group{Name: w.name(), Everything: r.IntN(3) == 0, Nodes: []int64{w.nodes[r.IntN(len(w.nodes))].ID}})
		w.must(err)
		w.groups = append(w.groups, g)
		return "add a group"
	}
	w.editGroup()
	return "edit a group"
}

func (w *world) group() int64 {
	if len(w.groups) == 0 || w.rng.IntN(2) == 0 {
		return corestore.DefaultGroup
	}
	return w.groups[w.rng.IntN(len(w.groups))].ID
}

func (w *world) editSubscription(sub corestore.Subscription) string {
	what := ""
	_, _, err := w.store.EditSubscription(w.t.Context(), fmt.Sprint(sub.ID), func(s *corestore.Subscription) error {
		switch w.rng.IntN(6) {
		case 0:
			what, s.Enabled = "enable or disable a subscription", !s.Enabled
		case 1:
			what = "rotate a subscription"
			s.Rotate()
		case 2:
			what, s.GroupID = "put a subscription into another group", w.group()
		case 3:
			what, s.RateUpBitsPerSecond = "limit a subscription", int64(w.rng.IntN(100))
		case 4:
			what = "give a subscription credentials"
			s.Credentials = []corestore.Credential{
				{Protocol: "vless", Flow: "xtls-rprx-vision"},
				{Protocol: "socks", ID: w.name(), Password: "p"},
				{Protocol: "wireguard", PublicKey: w.name(), AllowedIPs: []string{"10.0.0.2/32"}},
			}
			if all, err := w.store.Protocols(w.t.Context(), w.nodes[0].ID); err == nil && len(all) > 0 {
				s.Credentials = append(s.Credentials, corestore.Credential{Protocol: all[0].Protocol, ProtocolID: all[0].ID, ID: w.name(), Password: w.name()})
			}
		default:
			what, s.Note = "note something, which nodes do not know", w.name()
		}
		return nil
	})
	w.must(err)
	return what
}

func (w *world) editGroup() {
	all, err := w.store.Groups(w.t.Context())
	w.must(err)
	_, _, err = w.store.EditGroup(w.t.Context(), fmt.Sprint(all[w.rng.IntN(len(all))].ID), func(g *corestore.Group) error {
		g.Everything, g.Nodes, g.Protocols = w.rng.IntN(2) == 0, nil, nil
		for _, node := range w.nodes {
			protocols, err := w.store.Protocols(w.t.Context(), node.ID)
			w.must(err)
			if w.rng.IntN(2) == 0 {
				g.Nodes = append(g.Nodes, node.ID)
			}
			for _, p := range protocols {
				if w.rng.IntN(3) == 0 {
					g.Protocols = append(g.Protocols, p.ID)
				}
			}
		}
		return nil
	})
	w.must(err)
}

func (w *world) editLayout() string {
	ctx, r := w.t.Context(), w.rng
	node := w.nodes[r.IntN(len(w.nodes))]
	all, err := w.store.Protocols(ctx, node.ID)
	w.must(err)
	switch r.IntN(8) {
	case 0, 1, 2:
		p := inbounds[r.IntN(len(inbounds)-1)]
		if r.IntN(12) == 0 {
			p = inbounds[len(inbounds)-1]
		}
		p.NodeID = node.ID
		_, err := w.store.AddProtocol(ctx, p)
		w.must(err)
		return "add an inbound"
	case 3:
		if len(all) > 0 {
			_, err := w.store.RemoveProtocol(ctx, all[r.IntN(len(all))].ID)
			w.must(err)
		}
		return "remove an inbound"
	case 4, 5:
		if len(all) > 0 {
			before := all[r.IntN(len(all))]
			after := before
			switch {
			case before.Protocol == "wireguard" && r.IntN(2) == 0:
				after.Config = withFixedPeers(r)
			case r.IntN(2) == 0:
				after.Enabled = !after.Enabled
			default:
				after.Tag = w.name()
			}
			_, err := w.store.UpdateProtocols(ctx, []corestore.EditedProtocol{{Before: before, After: after}}, nil)
			w.must(err)
		}
		return "edit an inbound"
	case 6:
		_, _, err := w.store.EditNode(ctx, node.Name, func(n *corestore.Node) error {
			n.Enabled = !n.Enabled
			return nil
		})
		w.must(err)
		return "enable or disable a node"
	}
	w.must(w.store.SetMTProto(ctx, node.ID, []byte(fmt.Sprintf(`{"upstreams":[{"type":"direct","n":%d}],"advanced":{"a":{"b": 1}}}`, r.IntN(3)))))
	return "edit MTProto options"
}

// withFixedPeers is an inbound of WireGuard with some peers that an operator has written.
func withFixedPeers(r *rand.Rand) []byte {
	peers := []string{`{"publicKey":"fixed"}`, `{"publicKey":"<&>","allowedIPs":["10.0.0.9"]}`, `{"publicKey":"third","email":"operator"}`}
	r.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	return fmt.Appendf(nil, `{"protocol":"wireguard","port":7,"settings":{"secretKey":"k","peers":[%s]}}`, strings.Join(peers[:r.IntN(len(peers)+1)], ","))
}

func jsonOf(t *testing.T, d *Document) []byte {
	t.Helper()
	var plain bytes.Buffer
	if err := d.WriteJSON(&plain); err != nil {
		t.Fatal(err)
	}
	frames, err := d.Packed()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := zstd.NewReader(bytes.NewReader(bytes.Join(frames, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	unpacked, err := io.ReadAll(reader)
	if err != nil || !bytes.Equal(unpacked, plain.Bytes()) {
		t.Fatalf("the frames hold other bytes (%v)", err)
	}
	return plain.Bytes()
}

// inboundsOf are the inbounds in a document, in their order and with clients in theirs.
func inboundsOf(t *testing.T, raw []byte) (services wire.Services, clientMap map[string]wire.ClientRef) {
	t.Helper()
	var config wire.NodeConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	return config.Services, config.ClientMap
}

// Whatever is edited, a document is what Build makes of the rows, to the byte but for the order of
// clientMap; another instance makes the same bytes under the same ETag; and the delta from an
// earlier document leads to it.
func TestDocumentsAreThoseOfBuild(t *testing.T) {
	t.Parallel()
	var deltas, wholes int
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			r := New(w.store)
			held := map[int64][]*Document{}
			for step := range 45 {
				what := w.edit()
				if w.rng.IntN(3) == 0 {
					continue // a burst
				}
				for _, node := range w.nodes {
					var base *Document
					if n := len(held[node.ID]); n > 0 {
						base = held[node.ID][n-1-w.rng.IntN(min(n, keptVersions-1))]
					}
					etag := ""
					if base != nil {
						etag = base.ETag
					}
					d, change, err := r.Delta(t.Context(), node.ID, etag)
					w.must(err)
					raw := jsonOf(t, d)
					w.sameAsBuild(fmt.Sprintf("step %d, %s, node %d", step, what, node.ID), node.ID, raw)
					other, err := New(w.store).Document(t.Context(), node.ID)
					w.must(err)
					if other.ETag != d.ETag || !bytes.Equal(jsonOf(t, other), raw) {
						t.Fatalf("step %d, %s: another instance makes another document", step, what)
					}
					if base != nil && base.ETag != d.ETag {
						if change != nil {
							deltas++
							w.leadsTo(base, change, raw)
						} else {
							wholes++
						}
						if change == nil && d.layout != nil && base.layout == d.layout {
							if s, ok := r.span(base.now.seq, d.now.seq); !ok || 2*len(s.changes) <= d.clients()+minWhole {
								t.Fatalf("step %d, %s: there is no delta", step, what)
							}
						}
					}
					w.must(r.Asked(node.ID, d))
					if base == nil || base.ETag != d.ETag {
						held[node.ID] = append(held[node.ID], d)
					}
				}
			}
		})
	}
	t.Logf("%d deltas, %d whole documents", deltas, wholes)
	if deltas < wholes || wholes == 0 {
		t.Errorf("there were %d deltas and %d whole documents", deltas, wholes)
	}
}

func (w *world) sameAsBuild(when string, node int64, raw []byte) {
	w.t.Helper()
	rows, err := w.store.NodeRows(w.t.Context(), node)
	w.must(err)
	config, err := nodeconfig.Build(rows)
	w.must(err)
	want, err := json.Marshal(config)
	w.must(err)
	gotServices, gotMap := inboundsOf(w.t, raw)
	wantServices, wantMap := inboundsOf(w.t, want)
	if !bytes.Equal(gotServices.Xray, wantServices.Xray) || !bytes.Equal(gotServices.MTProto, wantServices.MTProto) {
		w.t.Fatalf("%s: got\n%s\n%s\nwant\n%s\n%s", when, gotServices.Xray, gotServices.MTProto, wantServices.Xray, wantServices.MTProto)
	}
	if !reflect.DeepEqual(gotMap, wantMap) || len(raw) != len(want) {
		w.t.Fatalf("%s: got\n%s\nwant\n%s", when, raw, want)
	}
}

// leadsTo applies a delta, as it goes over the wire, to the document that it is for.
func (w *world) leadsTo(base *Document, change *delta.Delta, want []byte) {
	w.t.Helper()
	before, err := delta.Read(jsonOf(w.t, base))
	w.must(err)
	decoded, err := delta.Decode(change.Append(nil))
	w.must(err)
	after, err := delta.Apply(before, decoded)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, change.Append(nil))
	}
	sum, err := delta.Of(want)
	if err != nil || after.Digest() != sum {
		w.t.Fatalf("the digest is %s (%v), want %s", after.Digest(), err, sum)
	}
}

// The same clients make the same chunks, in whichever order they came and went.
func TestChunksDependOnClientsAlone(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	all := map[int64]*corestore.Client{}
	var chunks []*chunk
	for range 400 {
		gone, come := map[int64]bool{}, []*corestore.Client(nil)
		for range rng.IntN(60) {
			id := rng.Int64N(4000)
			if all[id] != nil {
				gone[id] = true
				delete(all, id)
				if rng.IntN(3) > 0 {
					continue
				}
			}
			all[id] = &corestore.Client{ID: id}
			come = slices.DeleteFunc(come, func(c *corestore.Client) bool { return c.ID == id })
			come = append(come, all[id])
		}
		come = slices.DeleteFunc(come, func(c *corestore.Client) bool { return all[c.ID] != c })
		chunks = edited(chunks, gone, come)
		var clients []*corestore.Client
		for _, c := range all {
			clients = append(clients, c)
		}
		slices.SortFunc(clients, func(a, b *corestore.Client) int { return int(a.ID - b.ID) })
		want := chunksOf(clients)
		if len(chunks) != len(want) {
			t.Fatalf("there are %d chunks, want %d", len(chunks), len(want))
		}
		for i := range want {
			if !slices.Equal(chunks[i].clients, want[i].clients) {
				t.Fatalf("chunk %d has other clients", i)
			}
		}
	}
}

// The program zstd, which has the decoder of most others in it, takes several frames.
func TestStockDecoderTakesTheFrames(t *testing.T) {
	program, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("NOT RUN: zstd is missing (apt-get install zstd)")
	}
	w := newWorld(t, 9)
	for range 40 {
		w.edit()
	}
	d, err := New(w.store).Document(t.Context(), w.nodes[0].ID)
	w.must(err)
	frames, err := d.Packed()
	w.must(err)
	cmd := exec.CommandContext(t.Context(), program, "-dc")
	cmd.Stdin = bytes.NewReader(bytes.Join(frames, nil))
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, jsonOf(t, d)) {
		t.Errorf("%v: %d bytes come out", err, len(out))
	}
}
