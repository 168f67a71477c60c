package worker

import "github.com/xtls/xray-core/core"

// XrayVersion is the version of the embedded xray-core.
func XrayVersion() string { return core.Version() }
