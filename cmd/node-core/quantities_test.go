package main

import (
	"strings"
	"testing"
)

func TestQuantitiesAreRead(t *testing.T) {
	for text, want := range map[string]int64{
		"10GiB": 10 << 30, "1.5 GiB": 3 << 29, "10gb": 10e9, "0": 0, "none": 0, "7": 7, "0.5KiB": 512, "8191PiB": 8191 << 50,
		"": -1, "GiB": -1, "-1": -1, "10 apples": -1, "1e3": -1, "9999999PiB": -1, "1.2.3": -1, "8192PiB": -1,
	} {
		if got, err := parseBytes(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q gave %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]int64{"10Mbit": 10e6, "1gbit": 1e9, "2.5kbit": 2500, "none": 0, "10MiB": -1} {
		if got, err := parseRate(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q gave %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]int64{"30d": 30 * 86400, "12h": 12 * 3600, "1y": 365 * 86400, "2w": 14 * 86400, "never": 0, "2027-01-31": 0, "30": -1, "0d": -1, "tomorrow": -1, "2027-02-30": -1, "d": -1, "9999y": -1} {
		if got, err := parseExpiry(text); (err != nil) != (want < 0) || err == nil && got.AfterSeconds != want {
			t.Errorf("%q gave %+v, %v; want %d", text, got, err, want)
		}
	}
	at, err := parseExpiry("2027-01-31")
	if err != nil || at.At == nil || at.At.String() != "2027-01-31 00:00:00 +0000 UTC" {
		t.Errorf("a day gave %v, %v", at.At, err)
	}
}

// Whatever is typed gives a number that fits, or an error; what is shown of it reads back.
func FuzzQuantities(f *testing.F) {
	for _, text := range []string{"10GiB", "1.5 gb", "none", "30d", "2027-01-31", "10Mbit", strings.Repeat("9", 40) + "b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseBytes(text); err == nil {
			if n < 0 {
				t.Errorf("%q is %d bytes", text, n)
			}
			if _, err := parseBytes(bytesText(n)); err != nil && n < 8191<<50 {
				t.Errorf("%d bytes are shown as %q: %v", n, bytesText(n), err)
			}
		}
		if n, err := parseRate(text); err == nil {
			if again, err := parseRate(rateText(n)); n < 0 || err != nil || again != n {
				t.Errorf("%q is %d bits a second, shown as %q", text, n, rateText(n))
			}
		}
		if e, err := parseExpiry(text); err == nil && (e.AfterSeconds < 0 || e.At != nil && e.AfterSeconds > 0) {
			t.Errorf("%q is %+v", text, e)
		}
	})
}
