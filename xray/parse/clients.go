package parse

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"github.com/google/uuid"
)

// keyMembers are the members of a client whose value can be a key of the client map, in the
// order in which Core's contract has them tried.
var keyMembers = []string{"email", "id", "password", "auth"}

// limitMembers are members that Core adds to Xray's client object.
var limitMembers = []string{"limitIps", "limitConnections", "rateUpBitsPerSecond", "rateDownBitsPerSecond", memberGrant}

const memberGrant = "grant"

// panelMembers are members of a client that panels write for themselves and that Xray passes
// over. They are not kept, so that a change of one of them touches no connection.
var panelMembers = []string{"limitIp", "totalGB", "expiryTime", "enable", "tgId", "subId", "comment", "reset", "created_at", "updated_at", "ivCheck"}

// takeClients reads the clients of an inbound and removes them from members, so that the rest
// of two inbounds can be compared without them. refused has a fault for each client that
// could not be read.
func takeClients(in *state.Inbound, members map[string]json.RawMessage, inClientMap func(string) bool) (clients state.Clients, refused []*fault.Fault, err error) {
	if !state.Protocols[in.Protocol].KnowsClients() || members["settings"] == nil {
		return nil, nil, nil
	}
	settings, err := rawjson.Object(members["settings"])
	if err != nil {
		return nil, nil, fault.InText(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	if err := renameUsers(in.Protocol, settings); err != nil {
		return nil, nil, fault.InText(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	if !state.Protocols[in.Protocol].UserManager || in.Protocol == "wireguard" {
		if clients, in.Unattributed, refused, err = takeAccounts(*in, settings, inClientMap); err != nil {
			return nil, nil, err
		}
		members["settings"], err = json.Marshal(settings)
		return clients, refused, err
	}
	var raws []jsontext.Value
	if raw, ok := settings["clients"]; ok {
		if raws, err = rawjson.Elements(raw); err != nil {
			return nil, nil, fault.InText(in.Tag, "read settings.clients of inbound %q: %v", in.Tag, err)
		}
		// The member stays, with an empty list: by it Xray chooses Shadowsocks with several
		// users.
		settings["clients"] = json.RawMessage("[]")
	} else {
		in.Unattributed = singleUser(settings)
	}
	if members["settings"], err = json.Marshal(settings); err != nil {
		return nil, nil, fault.InText(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	read := parseAll(*in, raws, inClientMap)
	return state.SortClients(read.unique(in.Tag)), read.refused, nil
}

// clientList is an inbound's list of clients as it was read. Each slice but refused has one
// element for each client of the list.
type clientList struct {
	clients []state.Client
	ids     []uuid.UUID // nil where the protocol has no UUIDs
	bad     []bool      // the client is refused
	refused []*fault.Fault
}

// refuse marks client i as refused and adds the fault that format and args describe.
func (l *clientList) refuse(tag string, i int, format string, args ...any) {
	l.bad[i] = true
	f := fault.InText(tag, format, args...).Of(fault.Client)
	f.Client = l.clients[i].Name
	l.refused = append(l.refused, f)
}

// unique returns the clients that are not refused. Of several clients with one key or one UUID
// it keeps the first and refuses the others.
func (l *clientList) unique(tag string) []state.Client {
	keys := make(map[string]int, len(l.clients))
	uuids := make(map[uuid.UUID]int, len(l.ids))
	for i := range l.clients {
		if l.bad[i] {
			continue
		}
		if j, twice := keys[l.clients[i].Key]; twice {
			l.refuse(tag, i, "inbound %q, clients[%d] and clients[%d] have the same key (email, or else id, password or auth): give each another one", tag, j, i)
			continue
		}
		keys[l.clients[i].Key] = i
		if l.ids == nil {
			continue
		}
		if j, twice := uuids[routed(l.ids[i])]; twice {
			l.refuse(tag, i, "inbound %q, clients[%d] and clients[%d] have one UUID (Xray ignores its bytes 6 and 7), so only one of them could connect: give each another UUID", tag, j, i)
			continue
		}
		uuids[routed(l.ids[i])] = i
	}
	if len(l.refused) == 0 {
		return l.clients
	}
	good := make([]state.Client, 0, len(l.clients))
	for i, c := range l.clients {
		if !l.bad[i] {
			good = append(good, c)
		}
	}
	return good
}

// singleUser returns the email of a Shadowsocks inbound without clients, which has one
// password in its settings; nil where it has none. Xray names the user by it.
func singleUser(settings map[string]json.RawMessage) []string {
	var email string
	if json.Unmarshal(settings["email"], &email) != nil || email == "" {
		return nil
	}
	return []string{email}
}

// parseAll reads the clients on all processors: a hundred thousand are most of the time
// that a document takes. inClientMap is called by several goroutines.
func parseAll(in state.Inbound, raws []jsontext.Value, inClientMap func(string) bool) *clientList {
	l := &clientList{clients: make([]state.Client, len(raws)), bad: make([]bool, len(raws))}
	if state.Protocols[in.Protocol].UUID {
		l.ids = make([]uuid.UUID, len(raws))
	}
	share := max(1000, (len(raws)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	errs := make([]map[int]error, (len(raws)+share-1)/share)
	var reading sync.WaitGroup
	for n := range errs {
		errs[n] = map[int]error{}
		reading.Go(func() {
			reader := clientReader{MemberReader: rawjson.NewMemberReader(), in: in, inClientMap: inClientMap}
			for i := n * share; i < min((n+1)*share, len(raws)); i++ {
				id, err := reader.client(raws[i], &l.clients[i])
				l.clients[i].Reading.Index = i
				if err != nil {
					errs[n][i] = err
				}
				if l.ids != nil {
					l.ids[i] = id
				}
			}
		})
	}
	reading.Wait()
	for _, of := range errs {
		for _, i := range slices.Sorted(maps.Keys(of)) {
			l.refuse(in.Tag, i, "inbound %q, clients[%d]: %v", in.Tag, i, of[i])
		}
	}
	return l
}

// clientReader reads an inbound's clients one after the other.
type clientReader struct {
	*rawjson.MemberReader
	in          state.Inbound
	inClientMap func(string) bool
	account     []byte // memory for the current client's members, without email
	id          []byte // memory for the current client's id
}

// client reads one client into to and returns its UUID, which is zero where the protocol has
// no UUIDs.
func (r *clientReader) client(raw []byte, to *state.Client) (id uuid.UUID, err error) {
	members, err := r.Read(raw)
	if err != nil {
		return id, err
	}
	to.Reading.OddCase = slices.ContainsFunc(members, func(m rawjson.Member) bool { return isOddCase(m.Name) })
	if members, err = takeLimits(raw, members, to); err != nil {
		return id, err
	}
	if email := rawjson.Find(members, "email"); email != nil {
		to.Name, _ = email.Text() // an email that is no string is ignored
	}
	for _, name := range keyMembers {
		m := rawjson.Find(members, name)
		if m == nil {
			continue
		}
		value, _ := m.Text()
		if value != "" && r.inClientMap(value) {
			to.Reading.Settled = to.Key == ""
			to.Key, to.Tied = value, true
			break
		}
		if to.Key == "" {
			to.Key = value
		}
	}
	if to.Key == "" {
		return id, errors.New("it has none of email, id, password and auth: give it one")
	}
	if to.Name == to.Key { // as mostly: one text is kept, and not two
		to.Name = to.Key
	}
	if flow := rawjson.Find(members, "flow"); flow != nil {
		text, _ := flow.Text()
		to.Reading.Vision = text == state.FlowVision && rawjson.Find(members, "reverse") == nil
	}
	if state.Protocols[r.in.Protocol].UUID {
		if id, err = r.parseUUID(rawjson.Find(members, "id")); err != nil {
			return id, err
		}
		to.Reading.UUIDHash = hashUUID(id)
	}
	all := len(members)
	members = slices.DeleteFunc(members, func(m rawjson.Member) bool { return slices.Contains(panelMembers, m.Name) })
	to.Reading.Panel = len(members) < all
	members = slices.DeleteFunc(members, func(m rawjson.Member) bool { return m.Name == "email" })
	to.Reading.Shape = shapeOf(members)
	if name := state.Protocols[r.in.Protocol].Secret; name != "" {
		to.Reading.SecretHash = hashSecret(r.in.Protocol, members)
		to.Reading.NoSecret = !rawjson.HasText(members, name)
	}
	// Nested objects are not brought into canonical form: Core writes them the same way each
	// time, and there may be 100,000 clients.
	if r.account, err = rawjson.AppendMembers(r.account[:0], members); err != nil {
		return id, err
	}
	to.Email = emailOf(r.in.Tag, to.Key, r.account)
	if to.Bounded() {
		to.Group = GroupOf(to.Key)
	}
	to.Account = namedAccount(to.Email, r.account)
	shareTexts(to)
	return id, nil
}

// shareTexts makes the texts of the client parts of its account, which has most of them: a hundred thousand
// clients take a fifth less memory.
func shareTexts(c *state.Client) {
	named := c.Name == c.Key
	c.Email, c.Key = within(c.Account, c.Email), within(c.Account, c.Key)
	if named {
		c.Name = c.Key
	} else {
		c.Name = within(c.Account, c.Name)
	}
}

// within returns the text as a part of an account, where the account has it.
func within(account json.RawMessage, text string) string {
	at := bytes.Index(account, unsafe.Slice(unsafe.StringData(text), len(text)))
	if at < 0 || text == "" {
		return text
	}
	return unsafe.String(&account[at], len(text)) // nobody writes to an account
}

// GroupOf returns state.Client.Group of a client with limits or a grant.
func GroupOf(key string) string { return emailOf("", key, nil) }

// takeLimits reads the limits and the grant into to and returns the members without them.
func takeLimits(raw []byte, members []rawjson.Member, to *state.Client) (_ []rawjson.Member, err error) {
	isLimit := func(m rawjson.Member) bool { return slices.Contains(limitMembers, m.Name) }
	if !slices.ContainsFunc(members, isLimit) {
		return members, nil
	}
	if err := jsonv1.Unmarshal(raw, &to.Limits); err != nil {
		return nil, err
	}
	if m := rawjson.Find(members, memberGrant); m != nil {
		if to.Grant, err = grant.Read(json.RawMessage(m.Value)); err != nil {
			return nil, err
		}
		to.Reading.Granted = to.Grant != nil
	}
	return slices.DeleteFunc(members, isLimit), validateLimits(to.Limits)
}

// namedAccount returns a client object with the email and the members, which are written
// without braces.
func namedAccount(email string, members []byte) json.RawMessage {
	const head = `{"email":"`
	account := make([]byte, 0, len(head)+len(email)+len(`",}`)+len(members))
	account = append(append(append(account, head...), email...), '"')
	if len(members) > 0 {
		account = append(append(account, ','), members...)
	}
	return append(account, '}')
}

// shapeOf returns a hash of the names of a client's members and of the values of those that
// are no key.
func shapeOf(members []rawjson.Member) uint64 {
	var h xxhash.Digest
	h.Reset()
	for _, m := range members {
		_, _ = h.WriteString(m.Name)
		_, _ = h.WriteString("\x00")
		if !slices.Contains(keyMembers, m.Name) {
			_, _ = h.Write(m.Value)
		}
		_, _ = h.WriteString("\x00")
	}
	return h.Sum64()
}

func validateLimits(l state.Limits) error {
	if l.IPs < 0 || l.Connections < 0 || l.RateUpBitsPerSecond < 0 || l.RateDownBitsPerSecond < 0 {
		return errors.New("a limit is negative; leave it out for no limit")
	}
	return nil
}

// routed returns the UUID with zeros in bytes 6 and 7. Xray finds a user without these bytes:
// the client may use them to choose a route.
func routed(id uuid.UUID) uuid.UUID {
	id[6], id[7] = 0, 0
	return id
}

// hashUUID returns a hash that is equal for UUIDs that are one for Xray.
func hashUUID(id uuid.UUID) uint64 {
	id = routed(id)
	return xxhash.Sum64(id[:])
}

var errNotUUID = errors.New("its id is not a UUID (8-4-4-4-12 hex digits), so Xray would silently make another UUID of it: give it one")

// The lengths of the two forms of a UUID that Xray accepts, in characters.
const (
	groupedUUID = 36 // 8-4-4-4-12 hex digits
	plainUUID   = 32 // hex digits alone
)

// parseUUID reads a client's id. It allocates nothing: an inbound may have 100,000 clients.
func (r *clientReader) parseUUID(of *rawjson.Member) (id uuid.UUID, err error) {
	if of == nil || of.Value.Kind() == 'n' {
		return id, errors.New("it has no id: give it a UUID")
	}
	r.id, _ = of.AppendText(r.id[:0])
	return uuidOf(r.id)
}

// uuidOf parses a UUID in the forms that Xray accepts. uuid.ParseBytes alone would accept
// longer forms too, with "urn:uuid:" or in braces.
func uuidOf(text []byte) (id uuid.UUID, err error) {
	if len(text) != groupedUUID && len(text) != plainUUID {
		return id, errNotUUID
	}
	if id, err = uuid.ParseBytes(text); err != nil {
		return id, errNotUUID
	}
	return id, nil
}

// ClientMembers are the members of clients, accounts and peers that node-agent reads.
var ClientMembers = slices.Concat(keyMembers, limitMembers, []string{"method", "flow", "reverse", "user", "pass", "publicKey", "allowedIPs"})

// isOddCase reports whether name differs from one of ClientMembers only in upper and lower
// case.
func isOddCase(name string) bool {
	return !slices.Contains(ClientMembers, name) && slices.ContainsFunc(ClientMembers, func(ours string) bool { return strings.EqualFold(name, ours) })
}
