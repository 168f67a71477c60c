// Package packaging has the systemd units, and the test that systemd accepts
// them.
package packaging
