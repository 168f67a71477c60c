package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"

	"nodeagent/internal/e2e"
	"nodeagent/internal/telegram"
)

// The bytes that are moved over MTProto. They fit into a socket's buffer: telemt 3.4.25 can
// hold back the end of a longer burst.
const (
	telegramUp = 50_000
	telegramDn = 60_000
)

// findTelemt looks for telemt in TELEMT_BIN and in PATH.
func (d *demo) findTelemt() {
	if d.telemt = os.Getenv("TELEMT_BIN"); d.telemt == "" {
		d.telemt, _ = exec.LookPath("telemt")
	}
	if d.telemt == "" {
		d.say("SKIPPED: an MTProto inbound; no telemt is here (put one into PATH, or name it in TELEMT_BIN)")
		return
	}
	d.say("found telemt: an MTProto inbound is shown too")
}

func (d *demo) agentConfig() string {
	if d.telemt == "" {
		return config
	}
	return config + fmt.Sprintf("[telemt]\nbinary = %q\n", d.telemt)
}

// configureTelegram adds an MTProto inbound that reaches a stand-in for Telegram on loopback.
func (d *demo) configureTelegram() (err error) {
	if d.telemt == "" {
		return nil
	}
	d.say("node-core protocol add     an MTProto inbound, whose Telegram is a stand-in here")
	if d.telegram, err = d.core.AddMTProto(d.ctx, "demo-node"); err != nil {
		return err
	}
	if d.centre, err = e2e.NewTarget(); err != nil {
		return err
	}
	centre, err := telegram.NewCentre(d.centre.Serve)
	if err != nil {
		return err
	}
	return d.core.SetCentre(d.ctx, "demo-node", centre.Addr())
}

// moveTelegram moves bytes as a Telegram client with the subscription's link does.
func (d *demo) moveTelegram(sub e2e.Subscription) error {
	if d.telemt == "" {
		return nil
	}
	link, err := sub.SecureLink(d.telegram.Port)
	if err != nil {
		return err
	}
	d.say("    %s", link)
	if err := e2e.Eventually(d.ctx, func() error {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.telegram.Port)))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}); err != nil {
		return err
	}
	conn, err := telegram.DialLink(link, 2)
	if err != nil {
		return err
	}
	defer conn.Close()
	d.say("moving %d kB up and %d kB down over MTProto", telegramUp/1000, telegramDn/1000)
	if err := e2e.Exchange(conn, telegramUp, telegramDn); err != nil {
		return fmt.Errorf("move bytes over MTProto: %w", err)
	}
	return nil
}

func (d *demo) compareTelegram(billed e2e.Traffic) error {
	if d.telemt == "" {
		return nil
	}
	counted := d.centre.Traffic()
	fmt.Printf("    %-28s %12d %12d\n", "Telegram's stand-in counted", counted.Up, counted.Down)
	fmt.Printf("    %-28s %12d %12d\n", "Core has for alice, MTProto", billed.Up, billed.Down)
	if billed != counted || counted.Up < telegramUp {
		return fmt.Errorf("the bytes over MTProto differ: Core has %+v, the centre counted %+v", billed, counted)
	}
	return nil
}
