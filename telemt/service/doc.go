// Package service describes the MTProto inbounds that Core wants and turns each of
// them into the configuration file of one telemt process.
//
//   - Parts reads Core's MtProtoServiceConfig into a Service, part by part, and refuses the
//     parts that are wrong in the text.
//   - Desired is the part of a Service that concerns one inbound. Diff says how a
//     running telemt gets from one Desired to another: by itself, with a reload, or
//     with a restart.
//   - Desired.Render writes telemt's TOML file. NodeSettings are the values in it that
//     the node chooses, not Core: addresses on loopback, folders, secrets of the API.
//
// telemt shares its users, modes, mask and upstreams between all of its listeners and
// counts nothing per listener. Each inbound therefore has a telemt process of its own.
//
// The package starts nothing, opens nothing and keeps no state. It also holds the
// errors of package telemt and telemt/process, so that a caller can tell them apart
// without importing those.
package service
