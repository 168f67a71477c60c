package main

import (
	"slices"
	"strings"
	"testing"
)

// Every command of a noun prints a table or JSON, every removal takes --yes, and every change of the rows that
// make up nodes' configurations takes --wait, also where no node has to know of it.
func TestFlagsThatAllHave(t *testing.T) {
	waits := strings.Fields("user subscription plan group host routing protocol outbound")
	reads := strings.Fields("list show export errors")
	nouns := append(strings.Fields("node token device webhook client-rule client-template"), waits...)
	for _, noun := range newRootCmd(streams{}).Commands() {
		if !slices.Contains(nouns, noun.Name()) {
			continue
		}
		for _, verb := range noun.Commands() {
			flags := map[string]bool{"output": verb.Name() != "export", "yes": verb.Name() == "remove" || verb.Name() == "erase"}
			if slices.Contains(waits, noun.Name()) && !slices.Contains(reads, verb.Name()) {
				flags["wait"] = true
			}
			for name, wanted := range flags {
				if wanted && verb.Flags().Lookup(name) == nil {
					t.Errorf("node-core %s %s has no --%s", noun.Name(), verb.Name(), name)
				}
			}
		}
	}
}

// The words of the commands are fixed, since scripts have them.
func TestVerbs(t *testing.T) {
	root := newRootCmd(streams{})
	for nouns, verbs := range map[string]string{
		"user":         "add list show edit disable enable remove erase",
		"subscription": "add edit rotate reset show list disable enable remove",
		"plan group host routing protocol outbound": "add list show edit remove",
		"node":  "add list show edit remove",
		"token": "add list remove",
		"usage online audit serve restore check migrate-db backup": "",
	} {
		for noun := range strings.FieldsSeq(nouns) {
			for verb := range strings.FieldsSeq(verbs) {
				if found, _, err := root.Find([]string{noun, verb}); err != nil || found.Name() != verb {
					t.Errorf("there is no node-core %s %s", noun, verb)
				}
			}
			if found, _, err := root.Find([]string{noun}); err != nil || found.Name() != noun {
				t.Errorf("there is no node-core %s", noun)
			}
		}
	}
}
