// Package features has the features of xray-core that can be replaced while it runs:
// router, DNS client, policy and outbound manager. Each stands behind one atomic pointer
// or one lock, so that a stream sees the old one or the new one, and never neither.
//
// xray-core 26.7.28 does not offer that: its router reads its rules without the lock under
// which ReloadRules writes them (app/router/router.go:255 and 134), its outbound manager
// removes a handler before it takes the next one of that tag (app/proxyman/outbound/
// outbound.go:131), and neither its DNS (app/dns/dns.go:192) nor its policy
// (app/policy/manager.go:39) can be given another configuration. TestEveryOperationRollsBack,
// TestOutbounds and TestPolicyIsServed change them under open connections.
package features
