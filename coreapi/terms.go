package coreapi

import "time"

// DefaultGroup is the id of the group that subscriptions are in unless a request says another.
const DefaultGroup = 1

// Terms are what a plan and a subscription have alike: where the subscription lets in, and how
// far. A number of 0 is no limit.
type Terms struct {
	GroupID               int64  `json:"groupId"`
	LimitBytes            int64  `json:"limitBytes" doc:"Bounds the bytes up and down together of one period."`
	Period                string `json:"period" doc:"How often the count of bytes begins again: none, day, week, month or rolling-month."`
	LimitIPs              int64  `json:"limitIps"`
	LimitConnections      int64  `json:"limitConnections"`
	LimitDevices          int64  `json:"limitDevices" doc:"How many devices may fetch the subscription's own link, by the x-hwid that applications send."`
	RateUpBitsPerSecond   int64  `json:"rateUpBitsPerSecond"`
	RateDownBitsPerSecond int64  `json:"rateDownBitsPerSecond"`
}

// TermsEdit says which terms are set: the members that are there, see Terms.
type TermsEdit struct {
	Group                 *string `json:"group,omitempty" doc:"Name or id."`
	LimitBytes            *int64  `json:"limitBytes,omitempty"`
	Period                *string `json:"period,omitempty" doc:"none, day, week, month or rolling-month"`
	LimitIPs              *int64  `json:"limitIps,omitempty"`
	LimitConnections      *int64  `json:"limitConnections,omitempty"`
	LimitDevices          *int64  `json:"limitDevices,omitempty" minimum:"0" maximum:"1000"`
	RateUpBitsPerSecond   *int64  `json:"rateUpBitsPerSecond,omitempty"`
	RateDownBitsPerSecond *int64  `json:"rateDownBitsPerSecond,omitempty"`
	Expiry                *Expiry `json:"expiry,omitempty"`
}

// Expiry is when a subscription expires: at a time, or so many seconds from now, or from the
// first use. The zero value is never.
type Expiry struct {
	At           *time.Time `json:"at,omitempty"`
	AfterSeconds int64      `json:"afterSeconds,omitempty"`
	FromFirstUse bool       `json:"fromFirstUse,omitempty"`
	StartsBy     *time.Time `json:"startsBy,omitempty" doc:"With fromFirstUse: the time begins then at the latest."`
}
