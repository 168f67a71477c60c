// Package packaging has the systemd units and a test that systemd accepts them.
package packaging
