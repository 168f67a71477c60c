package check

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/hostfile"
	"nodeagent/xray/state"
)

// readFile reads a file of the host on which the inbounds will serve; see os.ReadFile.
type readFile = func(path string) ([]byte, error)

// mostOfCertificate bounds a file with certificates or a key, in bytes.
const mostOfCertificate = 1 << 20

// hostFiles reads certificates and keys. The engine waits for it.
var hostFiles = hostfile.New(mostOfCertificate)

// errNotRead means that a file was not looked at.
var errNotRead = errors.New("the file is not looked at here")

// checkCertificates returns a fault where TLS has no certificate, or one that is no
// certificate, does not belong to its key, or is not valid now. Xray would accept it silently
// and then fail every handshake.
//
// read reads a file of the host. Where it is nil, files are not looked at.
func checkCertificates(in state.Inbound, now time.Time, read readFile) error {
	stream := in.View().Stream
	if stream.Security != "tls" {
		return nil
	}
	serves := 0
	for i, c := range stream.TLSSettings.Certificates {
		if err := checkCertificate(c, now, read); err != nil && !errors.Is(err, errNotRead) {
			return certificateFault(c, in.Tag, err, "inbound %q: certificates[%d]%s: %v", in.Tag, i, certificatePlace(c), err)
		}
		if !isTrusted(c) {
			serves++
		}
	}
	if serves == 0 {
		return fault.InText(in.Tag, "inbound %q has TLS and no certificate, so every handshake would fail: add one to tlsSettings.certificates", in.Tag)
	}
	return nil
}

// certificateFault returns the fault over a certificate. It can be retried where a file or the
// host's clock may be the cause: these can change without another revision.
func certificateFault(c state.Certificate, tag string, err error, format string, args ...any) *fault.Fault {
	onHost := (c.CertificateFile != "" || c.KeyFile != "") && !errors.Is(err, errNotAbsolute) || errors.Is(err, errNotYetValid)
	if onHost {
		return fault.OnHost(tag, format, args...)
	}
	return fault.InText(tag, format, args...)
}

var (
	errNotAbsolute = errors.New("is not an absolute path")
	errNotYetValid = errors.New("is this host's clock right?")
)

func certificatePlace(c state.Certificate) string {
	if c.CertificateFile == "" {
		return ""
	}
	return " (" + c.CertificateFile + ")"
}

// isTrusted reports whether the certificate is an authority by which others are verified. Xray
// does not serve it. It serves a certificate without a usage, and with an unknown one.
func isTrusted(c state.Certificate) bool { return strings.EqualFold(c.Usage, "verify") }

// checkCertificate returns what is wrong with a certificate at the time now. It may serve
// handshakes, issue other certificates, or verify others.
func checkCertificate(c state.Certificate, now time.Time, read readFile) error {
	certificate, err := certificatePart(c.CertificateFile, c.Certificate, read)
	if isTrusted(c) {
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(certificate) {
			err = errors.New("it has no certificate in PEM by which others could be verified")
		}
		return err
	}
	key, keyErr := certificatePart(c.KeyFile, c.Key, read)
	switch {
	case err != nil && !errors.Is(err, errNotRead):
		return err
	case keyErr != nil:
		return keyErr
	case err != nil:
		return err
	}
	return CertificatePair(certificate, key, now)
}

func certificatePart(file string, lines []string, read readFile) ([]byte, error) {
	if file == "" {
		return []byte(strings.Join(lines, "\n")), nil
	}
	if !filepath.IsAbs(file) {
		return nil, fmt.Errorf("%q %w", file, errNotAbsolute)
	}
	if read == nil {
		return nil, errNotRead
	}
	return read(file)
}

// CertificatePair returns what is wrong with a certificate and its key at the time now, nil for
// nothing. Both are in PEM. The error quotes neither.
func CertificatePair(certificate, key []byte, now time.Time) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	switch leaf := pair.Leaf; {
	case leaf == nil:
		return errors.New("it has no leaf certificate")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it expired on %s; renew it", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it is not valid before %s; %w", leaf.NotBefore.UTC().Format(time.RFC3339), errNotYetValid)
	}
	return nil
}
