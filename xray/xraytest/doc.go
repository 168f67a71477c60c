// Package xraytest has what the tests of xray and its packages share.
package xraytest
