package certfiles

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtls/xray-core/common/platform/filesystem"
	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/internal/filewatch"
	"nodeagent/xray/check"
	"nodeagent/xray/ipc"
)

// New handshakes have to use a renewed certificate without a new listener, because a new
// listener would end the open connections of gRPC and QUIC. xray-core reads a certificate's
// files again in a loop (transport/internet/tls/config.go, setupOcspTicker): every hour, or
// as often as ocspStapling says. Files therefore replaces the paths of certificate files by
// virtual paths and sets the stapling interval to one second. The loop's reads of these paths
// block in Files until there is a new valid certificate. The operator's ocspStapling says how
// often an OCSP answer is requested.
const (
	certificateRoot = "/node-agent-certificate/"
	certificatePart = "certificate"
	keyPart         = "key"
	// newsFor is how long a new version is returned without blocking. A loop may have been
	// between two reads, or waiting for an OCSP answer, when the version came.
	newsFor = 6 * time.Second
	// readPause separates the reads of the loops of one inbound's listeners, because they
	// write to the same entry without a lock.
	readPause = 50 * time.Millisecond
)

// Files gives xray-core the contents of certificate files, and gives it renewed contents
// while an inbound serves. There is one Files in a process, because New sets process-wide
// variables of xray-core and net/http.
//
// Four kinds of goroutines use it. The worker's operations call Adopt, Built and Gone. The
// goroutine of the file watch calls look when files may have changed. xray-core's loops, one
// for each listener and certificate, call open; they block in awaitNews without a lock.
// Goroutines of stapler.renew call stapled when a new OCSP answer has come.
//
// Locks: mu guards pairs, next, reads, and the fields of each filePair below reading.
// filePair.reading lets one loop read at a time. If you also lock filePair.reading, take
// reading first. tell is called while mu is held, so it must not block and must not call
// Files. stapler.mu is never held together with mu.
//
// Invariants: look replaces certificate and key of a filePair together, and only by a valid
// pair. changed is open until wakeLocked closes and replaces it. After Gone, every read of
// the certificate ends the goroutine of the loop that reads.
type Files struct {
	watch   *filewatch.Watch
	tell    func(ipc.Notice)
	file    func(path string) (io.ReadCloser, error) // opens a file
	stapler stapler
	// stapling means that an operator wants OCSP answers for a certificate that does not come
	// from files, so that Files does not manage it.
	stapling atomic.Bool

	mu    sync.Mutex
	pairs map[string]*filePair // by name
	next  int                  // the number in the last name
	reads int                  // how often a certificate was read
}

// filePair is one certificate of an inbound, with its key.
type filePair struct {
	tag, certificateFile, keyFile string
	stapling                      time.Duration // the operator's ocspStapling

	reading sync.Mutex // one listener's loop at a time

	certificate, key []byte // PEM, the last valid pair
	leaf             *x509.Certificate
	since            time.Time     // when the pair, or an OCSP answer for it, came
	changed          chan struct{} // closed when there is a newer pair, or the inbound is closed
	built            bool          // the inbound is built: all further reads come from the loops
	gone             bool          // the inbound is closed
	complaint        string        // the last error that was reported
}

// ErrNoDaemon is the error of opening a file while no daemon runs that can read it. It says nothing
// about the file.
var ErrNoDaemon = errors.New("the daemon is gone")

// New makes an empty set of files. watch tells of changes; tell gets what an operator has to
// know, and must not block; file opens a file. Where that fails with ErrNoDaemon, the caller lets
// watch look again once there is a daemon.
func New(watch *filewatch.Watch, tell func(ipc.Notice), file func(path string) (io.ReadCloser, error)) *Files {
	c := &Files{watch: watch, tell: tell, file: file, pairs: map[string]*filePair{}}
	c.stapler = stapler{next: http.DefaultTransport, news: c.stapled, answers: map[string]*ocspAnswer{}}
	filesystem.NewFileReader = c.open // process-wide, as xray-core itself is
	http.DefaultClient.Transport = c  // xray-core requests OCSP answers with it; nothing else uses it
	return c
}

// Adopt replaces the paths of the inbound's certificate files in detour by virtual paths, and
// watches the files. The caller calls Built and Gone of the result when the inbound is built
// and when it is closed. The error is that of reading a file.
func (c *Files) Adopt(tag string, detour *conf.InboundDetourConfig) (Adopted, error) {
	var all Adopted
	if detour.StreamSetting == nil || detour.StreamSetting.TLSSettings == nil {
		return all, nil
	}
	for _, entry := range detour.StreamSetting.TLSSettings.Certs {
		if entry == nil || entry.OneTimeLoading { // null, or the operator wants no renewal
			continue
		}
		if entry.CertFile == "" || entry.KeyFile == "" {
			if entry.OcspStapling != 0 {
				c.stapling.Store(true)
			}
			continue
		}
		pair := &filePair{
			tag: tag, certificateFile: entry.CertFile, keyFile: entry.KeyFile, stapling: staplingInterval(entry.OcspStapling),
			since: time.Now(), changed: make(chan struct{}),
		}
		var err error
		if pair.certificate, pair.key, err = c.readPair(pair); err != nil {
			all.Gone()
			return nil, err
		}
		pair.leaf = leafOf(pair.certificate)
		c.mu.Lock()
		c.next++
		name := fmt.Sprint(c.next)
		c.pairs[name] = pair
		c.mu.Unlock()
		entry.CertFile, entry.KeyFile, entry.OcspStapling = certificateRoot+name+"/"+certificatePart, certificateRoot+name+"/"+keyPart, 1
		all = append(all, adoptedPair{c, name, pair})
		c.watch.Add(name, func() { c.look(pair) }, pair.certificateFile, pair.keyFile)
	}
	return all, nil
}

func (c *Files) read(path string) ([]byte, error) {
	file, err := c.file(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

func (c *Files) readPair(p *filePair) (certificate, key []byte, err error) {
	if certificate, err = c.read(p.certificateFile); err != nil {
		return nil, nil, err
	}
	key, err = c.read(p.keyFile)
	return certificate, key, err
}

// look reads the files. It uses them if they are a valid pair, and reports a notice if not.
func (c *Files) look(pair *filePair) {
	certificate, key, err := c.readPair(pair)
	if errors.Is(err, ErrNoDaemon) {
		return
	}
	if err == nil {
		err = check.CertificatePair(certificate, key, time.Now())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if pair.gone {
		return
	}
	if err != nil {
		if pair.complaint != err.Error() {
			pair.complaint = err.Error()
			c.tell(ipc.Notice{Tag: pair.tag, Message: fmt.Sprintf("inbound %q: the new certificate %s is not used, the one before goes on: %v", pair.tag, pair.certificateFile, err)})
		}
		return
	}
	pair.complaint = ""
	if bytes.Equal(certificate, pair.certificate) && bytes.Equal(key, pair.key) {
		return
	}
	pair.certificate, pair.key, pair.leaf = certificate, key, leafOf(certificate)
	pair.renewedLocked()
}

// renewedLocked makes the loops read again. The caller holds Files.mu.
func (p *filePair) renewedLocked() {
	p.since = time.Now()
	p.wakeLocked()
}

// wakeLocked wakes the loops that block in awaitNews. The caller holds Files.mu.
func (p *filePair) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// open replaces xray-core's function that opens a file for reading.
func (c *Files) open(path string) (io.ReadCloser, error) {
	rest, ours := strings.CutPrefix(path, certificateRoot)
	if !ours {
		return c.file(path)
	}
	name, part := filepath.Split(rest)
	c.mu.Lock()
	pair := c.pairs[strings.TrimSuffix(name, "/")]
	c.mu.Unlock()
	if pair == nil { // the inbound is closed
		runtime.Goexit()
	}
	if part == keyPart {
		c.mu.Lock()
		defer c.mu.Unlock()
		return io.NopCloser(bytes.NewReader(pair.key)), nil
	}
	return c.awaitNews(pair), nil
}

// awaitNews blocks until the certificate is new, or until it is time for another OCSP answer,
// and returns the certificate. Each read returns a different text, so that the loop of every
// listener sees a change.
func (c *Files) awaitNews(pair *filePair) io.ReadCloser {
	for {
		c.mu.Lock()
		changed, gone, every := pair.changed, pair.gone, pair.staplesEvery()
		var staple <-chan time.Time
		if every > 0 {
			if time.Since(pair.since) >= every {
				pair.since = time.Now() // new for the other loops too, whose time has also come
			}
			staple = time.After(time.Until(pair.since.Add(every)))
		}
		isNew := !pair.built || time.Since(pair.since) < newsFor
		c.mu.Unlock()
		switch {
		case gone:
			runtime.Goexit() // the loop's goroutine: an error would end it too, and be logged
		case isNew:
			return c.hand(pair)
		}
		select {
		case <-changed:
		case <-staple:
		}
	}
}

func (c *Files) hand(pair *filePair) io.ReadCloser {
	pair.reading.Lock()
	defer pair.reading.Unlock()
	if pair.built {
		time.Sleep(readPause)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return io.NopCloser(bytes.NewReader(fmt.Appendf(bytes.Clone(pair.certificate), "\nread %d\n", c.reads)))
}

// Adopted are the certificates of one inbound that come from files.
type Adopted []adoptedPair

type adoptedPair struct {
	files *Files
	name  string
	pair  *filePair
}

// Built says that the inbound is built: all further reads come from xray-core's loops and
// block until there is something new.
func (a Adopted) Built() {
	for _, p := range a {
		p.files.mu.Lock()
		p.pair.built = true
		p.files.mu.Unlock()
	}
}

// Gone ends the loops of an inbound that is closed.
func (a Adopted) Gone() {
	for _, p := range a {
		p.files.watch.Remove(p.name)
		p.files.mu.Lock()
		p.pair.gone = true
		p.pair.wakeLocked()
		delete(p.files.pairs, p.name)
		p.files.mu.Unlock()
	}
}
