// Package xraytest has the helpers that the tests of xray and its packages share: UUIDs,
// certificates, a certificate authority that answers OCSP, and texts of operations.
package xraytest
