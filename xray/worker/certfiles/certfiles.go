package certfiles

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
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

// A renewed certificate has to serve new handshakes without a new listener, which
// on gRPC and QUIC would end the open connections. xray-core reads a certificate's
// files again in a loop of its own (transport/internet/tls/config.go,
// setupOcspTicker): every hour, or as often as ocspStapling says. So certificates
// from files get names of ours and a stapling interval of a second, and the loop's
// reads wait here until there is something new that is good. What an operator has for
// the interval is how often an OCSP answer is asked for.
const (
	certificateRoot = "/node-agent-certificate/"
	certificatePart = "certificate"
	keyPart         = "key"
	// newsFor is how long a version is handed to whoever asks: a loop may have
	// been between two reads, or over its question for an OCSP answer.
	newsFor = 6 * time.Second
	// readPause keeps the loops of an inbound's listeners apart: they share one entry
	// that none of them locks.
	readPause = 50 * time.Millisecond
)

// Files hands xray-core the certificates on the disk.
type Files struct {
	watch   *filewatch.Watch
	tell    func(ipc.Notice)
	stapler stapler
	// stapling tells that an operator wants OCSP answers for a certificate that
	// xray-core has to itself.
	stapling atomic.Bool

	mu    sync.Mutex
	pairs map[string]*filePair // by name
	next  int
	reads int
}

// filePair is one inbound's certificate and key.
type filePair struct {
	tag, certificateFile, keyFile string
	stapling                      time.Duration // the operator's ocspStapling

	reading sync.Mutex // one listener's loop at a time

	certificate, key []byte // the last good ones
	leaf             *x509.Certificate
	since            time.Time     // when they came, or an OCSP answer did
	changed          chan struct{} // closed when there are newer ones, or the inbound is gone
	built            bool          // from then on reads are the loop's
	gone             bool
	complaint        string // what was told last
}

// New makes an empty set of files. watch tells of changes; tell gets what an operator has to
// know, and must not block.
func New(watch *filewatch.Watch, tell func(ipc.Notice)) *Files {
	c := &Files{watch: watch, tell: tell, pairs: map[string]*filePair{}}
	c.stapler = stapler{next: http.DefaultTransport, news: c.stapled, answers: map[string]*ocspAnswer{}}
	filesystem.NewFileReader = c.open // process-wide, as xray-core itself is
	http.DefaultClient.Transport = c  // its questions for OCSP answers, and nobody else's here
	return c
}

// Adopt gives the files of an inbound's certificates names of ours. What it gives
// back is told when the inbound is built, and when it is gone.
func (c *Files) Adopt(tag string, detour *conf.InboundDetourConfig) (Adopted, error) {
	var all Adopted
	if detour.StreamSetting == nil || detour.StreamSetting.TLSSettings == nil {
		return all, nil
	}
	for _, entry := range detour.StreamSetting.TLSSettings.Certs {
		if entry == nil || entry.OneTimeLoading { // garbage, or one to which the operator wants no changes
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
		if pair.certificate, pair.key, err = pair.read(); err != nil {
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

func (p *filePair) read() (certificate, key []byte, err error) {
	if certificate, err = os.ReadFile(p.certificateFile); err != nil {
		return nil, nil, err
	}
	key, err = os.ReadFile(p.keyFile)
	return certificate, key, err
}

// look takes what is on the disk where that is good, and tells where not.
func (c *Files) look(pair *filePair) {
	certificate, key, err := pair.read()
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
	pair.tellNews()
}

// tellNews lets the loops read again.
func (p *filePair) tellNews() {
	p.since = time.Now()
	p.wake()
}

func (p *filePair) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// open is how xray-core opens files.
func (c *Files) open(path string) (io.ReadCloser, error) {
	rest, ours := strings.CutPrefix(path, certificateRoot)
	if !ours {
		return os.Open(path)
	}
	name, part := filepath.Split(rest)
	c.mu.Lock()
	pair := c.pairs[strings.TrimSuffix(name, "/")]
	c.mu.Unlock()
	if pair == nil { // the inbound is gone
		runtime.Goexit()
	}
	if part == keyPart {
		c.mu.Lock()
		defer c.mu.Unlock()
		return io.NopCloser(bytes.NewReader(pair.key)), nil
	}
	return c.awaitNews(pair), nil
}

// awaitNews returns the certificate once it is news, or it is time to ask for another
// OCSP answer. Each read is another text, so that the loop of every listener takes it for
// a change.
func (c *Files) awaitNews(pair *filePair) io.ReadCloser {
	for {
		c.mu.Lock()
		changed, gone, every := pair.changed, pair.gone, pair.staplesEvery()
		var staple <-chan time.Time
		if every > 0 {
			if time.Since(pair.since) >= every {
				pair.since = time.Now() // news to the other loops too, which are as late
			}
			staple = time.After(time.Until(pair.since.Add(every)))
		}
		news := !pair.built || time.Since(pair.since) < newsFor
		c.mu.Unlock()
		switch {
		case gone:
			runtime.Goexit() // the loop's goroutine: an error would end it too, and be logged
		case news:
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

// Adopted are an inbound's certificates from files.
type Adopted []adoptedPair

type adoptedPair struct {
	files *Files
	name  string
	pair  *filePair
}

// Built tells that the inbound is made: reads come from xray-core's loop now.
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
		p.pair.wake()
		delete(p.files.pairs, p.name)
		p.files.mu.Unlock()
	}
}
