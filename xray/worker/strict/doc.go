// Package strict refuses members of Xray's objects that xray-core does not know and
// would silently ignore. The schemas are xray-core's own configuration types, read by
// reflection.
package strict
