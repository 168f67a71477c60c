package state

// routes is the part of Xray's routing object that names outbounds.
type Routes struct {
	Rules []struct {
		RuleTag     string `json:"ruleTag"`
		OutboundTag string `json:"outboundTag"`
		BalancerTag string `json:"balancerTag"`
	} `json:"rules"`
	Balancers []struct {
		Tag         string   `json:"tag"`
		Selector    []string `json:"selector"`
		FallbackTag string   `json:"fallbackTag"`
	} `json:"balancers"`
}
