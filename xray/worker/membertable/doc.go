// Command membertable writes xray/members/xray.json: which members the objects of the
// embedded xray-core have. It reads xray-core's own configuration types by reflection.
//
//	go generate ./xray/members
package main
