// Package install puts a release of telemt in its place, after a look at its checksum and version.
package install
