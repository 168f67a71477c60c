package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newDeviceCmd(s *shared) *cobra.Command {
	return group("device", "Devices: what has fetched a subscription's own link and has said which one it is", "  node-core device list 1\n  node-core device edit 3 --name 'the tablet'\n  node-core device remove 3",
		newDeviceListCmd(s), newDeviceEditCmd(s), newDeviceRemoveCmd(s))
}

func newDeviceListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list SUBSCRIPTION", Short: "List the devices of a subscription, the newest word first", Example: "  node-core device list 1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) ([]coreapi.Device, error) {
			return c.Devices(ctx, words[0])
		}, func(w io.Writer, all []coreapi.Device) {
			line(w, "ID", "NAME", "HWID", "MODEL", "OS", "APPLICATION", "SEEN")
			for _, d := range all {
				line(w, d.ID, d.Name, d.HWID, d.Model, d.OS+" "+d.OSVersion, d.UserAgent, d.LastSeenAt)
			}
		})
}

func newDeviceEditCmd(s *shared) *cobra.Command {
	var edit coreapi.DeviceEdit
	cmd := command(s, &cobra.Command{Use: "edit ID", Short: "Give a device a name", Example: "  node-core device edit 3 --name 'the tablet'", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (d coreapi.Device, err error) {
			id, err := parseCount(words[0])
			if err != nil {
				return d, err
			}
			return c.EditDevice(ctx, id, edit)
		}, func(w io.Writer, d coreapi.Device) { line(w, "device", d.ID, d.Name) })
	addOption(cmd.Flags(), &edit.Name, "name", "text", "a name for you", asText)
	return cmd
}

func newDeviceRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove ID", Short: "Forget a device, so that another one can take its place", Example: "  node-core device remove 3", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (removed coreapi.Removed, err error) {
			id, err := parseCount(words[0])
			if err != nil {
				return removed, err
			}
			return c.RemoveDevice(ctx, id)
		}, showRemoved), false, func(words []string) string { return "Forget device " + words[0] + "?" })
}
