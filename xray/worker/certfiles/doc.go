// Package certfiles hands certificate files to xray-core and renews them while an inbound
// serves: xray-core reads a certificate again once an hour at most, and here a changed
// file is served within two seconds. It also answers xray-core's OCSP questions from
// memory, so that no handshake waits for a certificate authority.
package certfiles
