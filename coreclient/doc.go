// Package coreclient calls Core's node routes over HTTP: one method for each route, and one type
// for each answer that is an error. It tries again for some seconds, which bridges a broken
// connection or a proxy that restarts. The caller decides about everything longer.
package coreclient
