package telegram

import (
	"encoding/base64"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// Each form of a link and of a secret that TDLib reads, and what it refuses.
func TestLinks(t *testing.T) {
	plain := []byte("0123456789abcdef")
	secure := append([]byte{0xdd}, plain...)
	tls := append(append([]byte{0xee}, plain...), "one.example"...)
	encodings := map[string]func([]byte) string{
		"hex": hex.EncodeToString, "hex in capitals": func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) },
		"base64url": base64.RawURLEncoding.EncodeToString, "base64url with padding": base64.URLEncoding.EncodeToString,
	}
	prefixes := []string{"tg://proxy?", "tg:proxy?", "TG://proxy?", "https://t.me/proxy?", "http://www.telegram.me/proxy?", "https://telegram.dog/proxy?"}
	for _, c := range []struct {
		raw  []byte
		want Proxy
	}{
		{plain, Proxy{Secret: plain}},
		{secure, Proxy{Secret: plain, Padded: true}},
		{tls, Proxy{Secret: plain, Padded: true, Domain: "one.example"}},
	} {
		for name, encode := range encodings {
			for _, prefix := range prefixes {
				c.want.Address = "[2001:db8::1]:443"
				link := prefix + "server=2001%3Adb8%3A%3A1&port=443&secret=" + encode(c.raw)
				if got, err := ParseLink(link); err != nil || !reflect.DeepEqual(got, c.want) {
					t.Errorf("%s, %s: %+v, %v, want %+v", link, name, got, err, c.want)
				}
			}
		}
	}
	long := append(append([]byte{0xee}, plain...), strings.Repeat("a", maxDomain+1)...)
	for _, wrong := range []string{
		"tg://socks?server=a&port=1&secret=" + hex.EncodeToString(plain), "https://t.me/other?server=a&port=1&secret=" + hex.EncodeToString(plain),
		"https://example.com/proxy?server=a&port=1&secret=" + hex.EncodeToString(plain),
		"tg://proxy?server=&port=1&secret=" + hex.EncodeToString(plain), "tg://proxy?server=a&port=0&secret=" + hex.EncodeToString(plain), "tg://proxy?server=a&port=65536&secret=" + hex.EncodeToString(plain),
		"tg://proxy?server=a&port=1&secret=" + hex.EncodeToString(plain[1:]), "tg://proxy?server=a&port=1&secret=*", "tg://proxy?server=a&port=1&secret=" + hex.EncodeToString(append([]byte{0xcc}, plain...)),
		"tg://proxy?server=a&port=1&secret=" + hex.EncodeToString(long),
	} {
		if got, err := ParseLink(wrong); err == nil {
			t.Errorf("%s is read as %+v", wrong, got)
		}
	}
}
