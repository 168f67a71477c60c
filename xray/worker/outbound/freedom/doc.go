// Package freedom lets xray-core's freedom outbound receive datagrams of every size: package
// datagrams keeps what does not fit, and WholeDatagrams joins it again.
package freedom
