package e2e

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// rewritten returns the document with another revision, white space, order of members and
// escapes. The lists of clients keep their text, because the values inside a client are
// compared as Core wrote them (clientReader.client in package xray).
func rewritten(t *testing.T, document []byte, revision int64) []byte {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber() // 1.0 stays 1.0
	var all map[string]any
	must(t, decoder.Decode(&all))
	all["revision"] = revision
	asWritten := decoded[struct {
		Services struct {
			Xray struct {
				Inbounds []struct {
					Settings struct {
						Clients json.RawMessage `json:"clients"`
					} `json:"settings"`
				} `json:"inbounds"`
			} `json:"xray"`
		} `json:"services"`
	}](t, document).Services.Xray.Inbounds
	for i, in := range all["services"].(map[string]any)["xray"].(map[string]any)["inbounds"].([]any) {
		if clients := asWritten[i].Settings.Clients; clients != nil {
			in.(map[string]any)["settings"].(map[string]any)["clients"] = clients
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	must(t, encoder.Encode(all))
	return text.Bytes()
}

// makeYoung moves every time in a core.db forward. Core deletes session events after 90
// days and the keys of batches after 60 days, and a fixture becomes older than that.
func makeYoung(t *testing.T, path string, by time.Duration) {
	t.Helper()
	if by <= 0 {
		return
	}
	db, err := sql.Open("sqlite", path)
	must(t, err)
	updates := textRows(t, db, `SELECT printf('UPDATE "%w" SET "%w" = "%w" + ?', m.name, c.name, c.name) FROM sqlite_master m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND c.type = 'INTEGER' AND (c.name = 'at' OR c.name LIKE '%\_at' ESCAPE '\')`)
	for _, update := range updates {
		_, err := db.Exec(update, by.Milliseconds())
		must(t, err)
	}
	must(t, db.Close())
}

// lacks describes the first difference between a JSON value and the recorded one. It is
// empty when there is none. Members that were not recorded do not count.
func lacks(have, want any) string {
	switch want := want.(type) {
	case map[string]any:
		object, _ := have.(map[string]any)
		for name, member := range want {
			if name == "links" || name == "without" {
				if missing := lacksLinks(name, object[name], member); missing != "" {
					return missing
				}
				continue
			}
			if missing := lacks(object[name], member); missing != "" {
				return name + ": " + missing
			}
		}
		return ""
	case []any:
		array, _ := have.([]any)
		if len(array) != len(want) {
			return fmt.Sprintf("%d elements and not %d", len(array), len(want))
		}
		for i, element := range want {
			if missing := lacks(array[i], element); missing != "" {
				return fmt.Sprintf("%d: %s", i, missing)
			}
		}
		return ""
	}
	if !reflect.DeepEqual(have, want) {
		return fmt.Sprintf("%v and not %v", have, want)
	}
	return ""
}

// lacksLinks describes what is wrong with the links of a subscription, or with its inbounds without
// one. Later versions have links for more inbounds: each recorded link has to be there, and an
// inbound without one had none before.
func lacksLinks(name string, have, want any) string {
	recorded, now := textsIn(want), textsIn(have)
	if name == "links" {
		for _, link := range recorded {
			if !slices.Contains(now, link) {
				return "the link " + link + " is gone"
			}
		}
		return ""
	}
	inbound := func(text string) string { tag, _, _ := strings.Cut(text, " "); return tag }
	for _, text := range now {
		if !slices.ContainsFunc(recorded, func(r string) bool { return inbound(r) == inbound(text) }) {
			return "an inbound lost its link: " + text
		}
	}
	return ""
}

// textsIn returns the texts of a JSON array.
func textsIn(array any) (texts []string) {
	list, _ := array.([]any)
	for _, element := range list {
		text, _ := element.(string)
		texts = append(texts, text)
	}
	return texts
}

func sameJSON(t *testing.T, a, b json.RawMessage) bool {
	t.Helper()
	return reflect.DeepEqual(decoded[any](t, a), decoded[any](t, b))
}

// compareSums reports every sum that differs.
func compareSums[K comparable](t *testing.T, what string, have, want map[K]Traffic) {
	t.Helper()
	for k := range addTo(have, want) {
		if have[k] != want[k] {
			t.Errorf("%s of %+v: Core has %+v, want %+v", what, k, have[k], want[k])
		}
	}
}

// compareLists reports every text that is not as often in one list as in the other.
func compareLists(t *testing.T, what string, have, want []string) {
	t.Helper()
	more := map[string]int{}
	for _, text := range have {
		more[text]++
	}
	for _, text := range want {
		more[text]--
	}
	for text, n := range more {
		if n != 0 {
			t.Errorf("%s: %q is there %+d times compared with what is wanted", what, text, n)
		}
	}
}

// schemaOf returns the SQL of the tables and indexes of a database.
func schemaOf(t *testing.T, path string) (schema []string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	schema = textRows(t, db, `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL`)
	must(t, db.Close())
	return schema
}

// textRows returns the rows of a query that has one text column.
func textRows(t *testing.T, db *sql.DB, query string) (texts []string) {
	t.Helper()
	rows, err := db.Query(query)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		texts = append(texts, text)
	}
	must(t, rows.Err())
	return texts
}
