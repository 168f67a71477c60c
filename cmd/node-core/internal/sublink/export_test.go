package sublink

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// A subscription that changes between a list and its files is left out, or has the files of now. It never
// fails an export.
func TestFilesOfStaleRows(t *testing.T) {
	s := newSite(t)
	id, listed := fmt.Sprint(s.sub.ID), s.sub
	edit := func(change func(*corestore.Subscription)) {
		t.Helper()
		_, _, err := s.store.EditSubscription(t.Context(), id, func(sub *corestore.Subscription) error {
			change(sub)
			return nil
		})
		s.must(err)
	}
	check := func(what, without string) {
		t.Helper()
		files, err := s.handler.Files(t.Context(), listed, "https://cdn.example", false)
		if err != nil || !strings.HasPrefix(files.Without, without) || (files.Without == "") != (without == "") || (len(files.Files) == 0) != (without != "") {
			t.Errorf("%s: %d files, without %q, want %q, %v", what, len(files.Files), files.Without, without, err)
		}
	}
	check("nothing changed", "")
	edit(func(sub *corestore.Subscription) { sub.LimitDevices = 2 })
	check("a limit of devices that is set meanwhile", "it has a limit of devices")
	listed.LimitDevices = 2
	edit(func(sub *corestore.Subscription) { sub.LimitDevices = 0 })
	check("a limit of devices that is gone meanwhile", "")
	edit((*corestore.Subscription).RotateLink)
	check("another link", "it was changed meanwhile")
	var err error
	listed, err = s.store.Subscription(t.Context(), id)
	s.must(err)
	check("a new list", "")
	_, err = s.store.RemoveSubscription(t.Context(), id)
	s.must(err)
	check("a removed one", "it was changed meanwhile")
}

// A template that was stored under a name that can't name a file goes on working, and has no file. Pages
// send their address, which is a secret, to no other host, and name no mirrors.
func TestFilesBesideOddTemplates(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{".x", "..", "page.en.html", "fine.yaml"} {
		s.must(s.store.SetClientTemplate(t.Context(), coreapi.ClientTemplate{Name: name, Form: "xray", Body: `{"outbounds":["{proxies}"]}`}))
	}
	files, err := s.handler.Files(t.Context(), s.sub, "https://cdn.example", true)
	s.must(err)
	var names []string
	for _, file := range files.Files {
		names = append(names, file.Name)
		if page := strings.HasPrefix(file.Name, "page."); page && (!strings.Contains(file.Body, `<meta name="referrer" content="no-referrer">`) || strings.Contains(file.Body, "mirror.example")) {
			t.Errorf("%s is %s", file.Name, file.Body)
		}
	}
	slices.Sort(names)
	if got, want := strings.Join(names, " "), "fine.yaml links mihomo page.en.html page.fa.html page.ru.html page.zh.html plain sing-box xray"; got != want {
		t.Errorf("the files are %s, want %s", got, want)
	}
	if w := s.get("/.x", ""); w.Code != 200 || !strings.Contains(w.Body.String(), s.sub.UUID) {
		t.Errorf("Core answers %d for a template of before", w.Code)
	}
}
