// Package borrowed looks at the sites whose TLS handshakes REALITY inbounds borrow.
//
// A REALITY inbound opens a connection to its site (realitySettings.target or dest) for each
// client, and makes its own handshake of the site's answer. Where the site cannot be reached,
// or speaks no TLS 1.3, no client is let in, though the inbound listens. Where the site's
// certificate is not for the serverNames, or the site has no HTTP/2, clients are let in, and
// a stranger who looks at the inbound sees that it is no real site.
package borrowed
