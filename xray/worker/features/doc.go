// Package features has the features of xray-core that can be replaced while it runs:
// router, DNS client, policy and outbound manager. Each stands behind one atomic pointer
// or one lock, so that a stream sees the old one or the new one, and never neither.
package features
