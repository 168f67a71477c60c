// Package httpupgrade is the listener of HTTPUpgrade. xray-core's own one does not tell of connections
// that it refuses.
package httpupgrade
