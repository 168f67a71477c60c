package xhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/xray/worker/relay"
)

const (
	// purpose is that of the streams between workers.
	purpose = "requests"
	// mostPassed is how many requests are with other workers at the same time. More are refused.
	mostPassed = 4096
	// mostAsked is how many requests wait at the same time for other workers to say whether they take
	// them. More are not asked about.
	mostAsked = 1024
	// mostIdle and idleFor bound the connections to one other worker that wait for the next request.
	mostIdle = 256
	idleFor  = 30 * time.Second
	// passedHeader bounds the headers of a request of another worker, in bytes. A listener has bounded
	// them before.
	passedHeader = 16 << 20
	// probeAgain is how often a worker that did not answer is tried again, and announceAgain how often it
	// is told again.
	probeAgain    = time.Second
	announceAgain = time.Second
	// A request that continues a session of a worker that does not answer waits for patience at most, and
	// looks every lookAgain whether the session has a worker.
	patience  = 10 * time.Second
	lookAgain = 100 * time.Millisecond
	// mostHops is how often one request is passed on as a new one: each worker passes it to a newer one.
	mostHops = 3
)

// reached is how the other workers of the node are reached: by a relay.Relay.
type reached interface {
	Lane() int
	Others() []int
	DialStream(ctx context.Context, purpose string, lane int) (net.Conn, error)
}

// workers passes requests to the other workers of the node, and takes theirs. Each worker has a number,
// its lane (package relay).
//
// A session belongs to the worker in which it began. Which worker that is, one worker decides for each
// address: the one that began to listen there last. It announces itself to all others before it takes
// the first request. A worker that gets a request of a session that it does not have passes it to that
// one, and that one asks the others.
type workers struct {
	places    *places
	reached   reached
	transport http.Transport
	server    http.Server
	room      chan struct{} // one for each request that is with another worker
	asking    chan struct{} // one for each request that waits for a worker's first answer
	draining  atomic.Bool

	mu      sync.Mutex
	count   int              // of announcements
	newer   map[string][]int // by the address, the workers that listen there since this one did, the last one at the end
	before  map[string]bool  // the addresses of which newer had workers
	hung    map[int]bool     // the workers that did not answer, and are asked nothing until they do
	told    map[lanePlace]*told
	serving map[lanePlace]servedPaths // of the workers in newer; nil for one that has not said it
}

// Join makes the listeners of this process pass requests to the other workers that the relay reaches,
// and take theirs. It is called before the first listener is made.
func Join(r *relay.Relay) error {
	socket, err := r.ListenStreams(purpose)
	if err != nil {
		return err
	}
	joinWorkers(&allPlaces, r, socket)
	return nil
}

func joinWorkers(p *places, r reached, socket net.Listener) *workers {
	x := &workers{places: p, reached: r, room: make(chan struct{}, mostPassed), newer: map[string][]int{}, before: map[string]bool{}, hung: map[int]bool{}, told: map[lanePlace]*told{}, serving: map[lanePlace]servedPaths{}, asking: make(chan struct{}, mostAsked)}
	x.transport = http.Transport{
		DialContext: x.dial, DisableCompression: true, MaxIdleConnsPerHost: mostIdle, IdleConnTimeout: idleFor,
		ExpectContinueTimeout: time.Minute, // pass gives up earlier
	}
	x.server = http.Server{Handler: x, ReadHeaderTimeout: answerWait, IdleTimeout: 2 * idleFor, MaxHeaderBytes: passedHeader}
	p.workers.Store(x)
	go func() { _ = x.server.Serve(socket) }() // until the process ends
	return x
}

// Drain says that this process drains: another worker takes the new connections.
func Drain() {
	if x := allPlaces.workers.Load(); x != nil {
		x.draining.Store(true)
	}
}

// Held reports whether this process, which drains, has requests that other workers serve, or connections
// that their clients may use again and can't do without.
func Held() bool {
	x := allPlaces.workers.Load()
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.room) > 0 || len(x.before) > 0 && held.Load() > 0
}

// dial connects with the worker whose lane is the host's name.
func (x *workers) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	lane, err := strconv.Atoi(host)
	if err != nil {
		return nil, fmt.Errorf("the name of a worker is %q, want its number", host)
	}
	conn, err := x.reached.DialStream(ctx, purpose, lane)
	if err != nil {
		return nil, err
	}
	return &workerConn{Conn: conn}, nil
}

// announce tells all other workers that this one listens at an address from now on, and for which requests,
// until withdraw is called or the process ends. A worker that does not answer, or does not know of
// announcements, goes on by itself.
func (x *workers) announce(address string, serves servedPath) (withdraw func()) {
	if x == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var telling sync.WaitGroup
	for _, lane := range x.reached.Others() {
		telling.Add(1)
		go x.keepAnnounced(ctx, lanePlace{lane, address}, serves, telling.Done)
	}
	telling.Wait()
	return cancel
}

// keepAnnounced announces an address to another worker, again and again until that has ended or says that
// it does not know of announcements. It calls tried after the first time.
func (x *workers) keepAnnounced(ctx context.Context, to lanePlace, serves servedPath, tried func()) {
	tried = sync.OnceFunc(tried)
	defer tried()
	var latest *told
	defer func() { x.forget(to, latest) }()
	for ctx.Err() == nil && slices.Contains(x.reached.Others(), to.lane) {
		if !x.hangs(to.lane) && !x.announceTo(ctx, to, serves, func(says *told) {
			x.hear(to, says)
			latest = says
			tried()
		}) {
			return
		}
		tried()
		select {
		case <-time.After(announceAgain):
		case <-ctx.Done():
		}
	}
}

// announceTo makes a request whose answer does not end, and reads it. It calls onAnswer with what the other
// worker says once that knows. It reports whether the other worker is to be told again.
func (x *workers) announceTo(ctx context.Context, to lanePlace, serves servedPath, onAnswer func(*told)) (again bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(answerWait, func() { cancel(errLate) })
	defer late.Stop()
	request := x.request(ctx, to.lane, kindListens, to.address)
	servedPaths{serves}.put(request.Header)
	var says *told
	answer, err := x.transport.RoundTrip(request)
	if err == nil {
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return false
		}
		says, err = readTold(answer)
	}
	if err != nil {
		if errors.Is(context.Cause(ctx), errLate) {
			x.noteHung(to.lane)
		}
		return !gone(err)
	}
	late.Stop()
	onAnswer(says)
	_, _ = io.Copy(io.Discard, answer.Body)
	return true
}

// follow notes that another worker listens at an address, as long as its request is there. What this one has
// there is told after that: sessions that begin later are the other one's.
func (x *workers) follow(w http.ResponseWriter, r *http.Request, from lanePlace) {
	serves, said := pathsIn(r.Header)
	x.mu.Lock()
	x.count++
	if before, has := x.serving[from]; !said || has && before == nil {
		serves = nil
	} else {
		serves = append(serves, before...) // it may have sessions on the paths that it served
	}
	x.serving[from] = serves
	x.newer[from.address] = append(x.newer[from.address], from.lane)
	x.before[from.address] = true
	delete(x.told, from)
	x.mu.Unlock()
	defer x.unfollow(from)
	paths, sessions := tell(x.places.at(from.address))
	paths.put(w.Header())
	w.Header().Set(fieldSessions, strconv.Itoa(len(sessions)/8))
	w.WriteHeader(http.StatusOK)
	if _, err := w.Write(sessions); err != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	<-r.Context().Done()
}

func (x *workers) unfollow(from lanePlace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := x.newer[from.address]
	if i := slices.Index(all, from.lane); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	if !slices.Contains(all, from.lane) {
		delete(x.serving, from)
	}
	if x.newer[from.address] = all; len(all) == 0 {
		delete(x.newer, from.address)
	}
}

// announced returns how many announcements there were.
func (x *workers) announced() int {
	if x == nil {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.count
}

// followed reports whether another worker listens at the address since this one did.
func (x *workers) followed(address string) bool {
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.newer[address]) > 0
}

// servesOn reports whether a listener that is closed takes new sessions on its open connections: in a
// worker that drains, where the next worker is too old to say that it listens there.
func (x *workers) servesOn(address string) bool {
	if x == nil || !x.draining.Load() {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.before[address]
}

// origin is the worker from which a request came, and how often the request was passed on as a new one.
type origin struct{ lane, hops int }

// aClient is the origin of a request that a client sent to this worker.
var aClient = origin{lane: -1}

// passOn passes a request of a session that this worker does not have to the worker that has it. A new
// one goes to the worker that began to listen at the address last. Where the result is notTaken, it is this
// worker's. Where it is noAnswer, a worker may have it that did not answer.
// Workers that can't know the request, by what they have said, are not asked.
func (x *workers) passOn(w http.ResponseWriter, r *http.Request, address string, from origin, kind part) (result outcome) {
	if x == nil {
		return notTaken
	}
	others := x.reached.Others()
	if len(others) == 0 {
		return notTaken
	}
	x.mu.Lock()
	newer := slices.Clone(x.newer[address])
	x.mu.Unlock()
	slices.Reverse(newer)
	if from.hops < mostHops {
		for _, lane := range newer {
			if lane != from.lane && (kind != foreign || x.mayServe(lane, address, r)) {
				if result = max(result, x.pass(w, r, lane, kindNew, address, from.hops+1)); result == answered {
					return answered
				}
			}
		}
	}
	for _, lane := range others {
		if kind != alone && lane != from.lane && !slices.Contains(newer, lane) && x.mayHave(lane, address, r) {
			if result = max(result, x.pass(w, r, lane, kindKnown, address, from.hops)); result == answered {
				return answered
			}
		}
	}
	return result
}

// hangs reports whether a worker did not answer, and has not since.
func (x *workers) hangs(lane int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.hung[lane]
}

// noteHung notes that a worker did not answer. It is tried again without a client's request, so that no
// client waits.
func (x *workers) noteHung(lane int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.hung[lane] {
		x.hung[lane] = true
		go x.probe(lane)
	}
}

// probe asks a worker that did not answer about an address that it does not have, until it answers or has
// ended.
func (x *workers) probe(lane int) {
	for slices.Contains(x.reached.Others(), lane) {
		time.Sleep(probeAgain)
		ctx, cancel := context.WithTimeout(context.Background(), answerWait)
		answer, err := x.transport.RoundTrip(x.request(ctx, lane, kindKnown, ""))
		if err == nil {
			_ = answer.Body.Close()
		}
		cancel()
		if err == nil || gone(err) {
			break
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.hung, lane)
}

var (
	errLate = errors.New("the worker has not answered in time")
	errFull = errors.New("too many requests are with other workers")
)
