package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

// defaultWait is the time of --wait without a value.
const defaultWait = "30s"

// notTakenError makes the exit code exitNotTaken.
type notTakenError struct{ message string }

func (e *notTakenError) Error() string { return e.message }

// changing is command for a request that changes nodes. It adds the flag --wait.
func changing[Answer any](s *shared, cmd *cobra.Command, ask func(ctx context.Context, c *coreapi.Client, words []string) (Answer, coreapi.Change, error), show func(io.Writer, Answer)) *cobra.Command {
	var wait time.Duration
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait until the nodes concerned run the change, "+defaultWait+" where no time is given; exit with 4 where one refuses it or is away")
	cmd.Flags().Lookup("wait").NoOptDefVal = defaultWait
	s.output.AddTo(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		asked := cmd.Flags().Changed("wait")
		if err := checkWait(cmd, wait); err != nil {
			return err
		}
		client, err := s.client()
		if err != nil {
			return err
		}
		defer client.Close()
		answer, change, err := ask(cmd.Context(), client, words)
		if err != nil {
			return err
		}
		if err := printAnswer(s, answer, show); err != nil {
			return err
		}
		return s.waitFor(cmd.Context(), client, change, asked, wait)
	}
	return cmd
}

// unawaited adds the flag --wait to a command whose change concerns no node, since scripts give it to every
// change. There is nothing to wait for.
func unawaited(cmd *cobra.Command) *cobra.Command {
	var wait time.Duration
	cmd.Flags().DurationVar(&wait, "wait", 0, "taken as with other changes; no node has to know of this one, so that there is nothing to wait for")
	cmd.Flags().Lookup("wait").NoOptDefVal = defaultWait
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		if err := checkWait(cmd, wait); err != nil {
			return err
		}
		return run(cmd, words)
	}
	return cmd
}

// checkWait refuses a time that --wait can't have.
func checkWait(cmd *cobra.Command, wait time.Duration) error {
	if cmd.Flags().Changed("wait") && (wait <= 0 || wait > coreapi.MaxWait) {
		return fmt.Errorf("--wait %s: want more than 0 and at most %s", wait, coreapi.MaxWait)
	}
	return nil
}

// waitFor waits until the nodes run the change, where that was asked for, and tells which do
// not. Otherwise it tells only what they refuse already.
func (s *shared) waitFor(ctx context.Context, client *coreapi.Client, change coreapi.Change, asked bool, wait time.Duration) error {
	if !asked && change.Refusing != nil {
		// The others have nothing to tell, and can be ten thousand.
		change.Nodes = slices.DeleteFunc(change.Nodes, func(n coreapi.Revision) bool { return !slices.Contains(change.Refusing, n.Node) })
	}
	if len(change.Nodes) == 0 {
		return nil
	}
	client.Warned = nil // the answer to the change has said it
	states, err := client.Wait(ctx, coreapi.WaitArgs{Change: change, Wait: wait})
	switch {
	case err != nil && asked:
		return &notTakenError{fmt.Sprintf("the change is stored, and it is not known which nodes run it: %v", err)}
	case err != nil:
		return nil //nolint:nilerr // it was not asked for, and the change is stored
	}
	var lack []string
	for _, n := range states {
		for _, r := range n.Others {
			s.note("node %s refuses %s", n.Name, refusalText(r))
		}
		if !asked || n.State == coreapi.Runs {
			continue
		}
		lack = append(lack, nameOf(n))
		s.noteLack(n, wait)
	}
	if len(lack) == 0 {
		return nil
	}
	return &notTakenError{fmt.Sprintf("the change is stored, and %d of %d nodes do not run it: %s", len(lack), len(states), strings.Join(lack, ", "))}
}

// noteLack says why a node does not run a change.
func (s *shared) noteLack(n coreapi.NodeState, wait time.Duration) {
	heard := "it was never heard of"
	if n.Since != nil {
		heard = "it was last heard of at " + text(n.Since)
	}
	switch {
	case n.Reason != "":
		s.note("node %s has not taken the change: %s", nameOf(n), n.Reason)
	case n.State == coreapi.Away:
		s.note("node %s has not taken the change: it is away, %s", nameOf(n), heard)
	case n.State == coreapi.Waiting:
		s.note("node %s has not taken the change within %s; %s", nameOf(n), wait, heard)
	}
	for _, r := range n.Refused {
		s.note("node %s refuses the change: %s", nameOf(n), refusalText(r))
	}
}

func nameOf(n coreapi.NodeState) string {
	if n.Name == "" {
		return fmt.Sprint(n.Node)
	}
	return n.Name
}

// refusalText names a part that a node refuses, since when, and why.
func refusalText(r coreapi.Refusal) string {
	name := "its configuration as a whole"
	switch {
	case r.Client != "":
		name = fmt.Sprintf("client %q of inbound %q", r.Client, r.Tag)
	case r.Tag != "":
		name = fmt.Sprintf("%s %q", r.Kind, r.Tag)
	case r.Kind != "":
		name = r.Kind
	}
	next := ", and it waits for another change"
	switch {
	case r.Retry:
		next = ", and it tries again by itself"
	case r.Kind == "":
		next = "" // the node tells of parts alone whether it tries again
	}
	return fmt.Sprintf("%s since %s%s: %s", name, r.Since.Format(time.RFC3339), next, r.Reason)
}
