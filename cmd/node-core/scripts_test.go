package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/scripttest"
	"nodeagent/internal/secret"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"node-core": main})
}

// TestScripts runs testdata/script. Beside the commands of scripttest the scripts
// can act as a node:
//
//	register TOKEN NAME HOST IP
//	    Registers a node with its join token. $NODE_KEY is its key then, $MINUTE
//	    the minute in which this happened, and $NODE_TOKEN the token.
//	certificate CERT KEY DAYS
//	    Makes a certificate that ends in DAYS days; a negative number is an end that is over.
//	greater PATH NUMBER
//	    The stdout of the last command is JSON and has a number at PATH that is greater.
//	heartbeat USER-AGENT
//	    Sends a heartbeat as that node, whose agent has this User-Agent.
//	panel-file PATH FILE
//	    Copies a file that a panel made (internal/importer/testdata) to FILE.
//	core-url NAME TOKEN
//	    Sets an environment variable to Core's address in a join token.
//	write-file FILE TEXT
//	    Writes a file that only its owner can read.
//	fetch FILE URL [HEADER=VALUE...]
//	    Writes what Core answers to a GET into FILE.
//	report ROUTE FILE
//	    Sends FILE to a node route as that node. $NAME in it is replaced.
func TestScripts(t *testing.T) {
	scripttest.Run(t, map[string]scripttest.Command{"register": register, "heartbeat": heartbeat, "report": report, "certificate": certificate, "greater": greater, "core-url": coreURL, "write-file": writeFile, "panel-file": panelFile(t), "fetch": fetch})
}

func TestEveryCommandHasAScript(t *testing.T) {
	scripttest.EveryCommand(t, newRootCmd(streams{out: io.Discard, err: io.Discard}))
}

// client calls the Core that a join token names.
func client(ts *testscript.TestScript, joinToken, key string) *coreclient.Client {
	return clientOfAgent(ts, joinToken, key, nil)
}

// clientOfAgent has a User-Agent; nil for the default one.
func clientOfAgent(ts *testscript.TestScript, joinToken, key string, agent func() string) *coreclient.Client {
	token, err := wire.ParseJoinToken(joinToken)
	ts.Check(err)
	client, err := coreclient.New(coreclient.Config{CoreURL: token.CoreURL, Pin: token.Pin, AuthKey: secret.Text(key), UserAgent: agent}, slog.New(slog.DiscardHandler))
	ts.Check(err)
	return client
}

func register(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: register TOKEN NAME HOST IP")
	}
	token, err := wire.ParseJoinToken(args[0])
	ts.Check(err)
	body, err := json.Marshal(wire.RegisterRequest{Code: token.Code.Reveal(), Name: args[1], Host: args[2], IP: args[3]})
	ts.Check(err)
	answer, err := client(ts, args[0], "").Register(context.Background(), secret.Text(rand.Text()), secret.Text(body))
	ts.Check(err)
	ts.Setenv("NODE_TOKEN", args[0])
	ts.Setenv("NODE_KEY", answer.AuthKey.Reveal())
	ts.Setenv("MINUTE", time.Now().UTC().Truncate(time.Minute).Format(time.RFC3339))
}

func heartbeat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: heartbeat USER-AGENT")
	}
	node := clientOfAgent(ts, ts.Getenv("NODE_TOKEN"), ts.Getenv("NODE_KEY"), func() string { return args[0] })
	_, err := node.Heartbeat(context.Background(), wire.HeartbeatRequest{}, "", rand.Text(), 0)
	ts.Check(err)
}

func report(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: report ROUTE FILE")
	}
	body := os.Expand(ts.ReadFile(args[1]), ts.Getenv)
	node := client(ts, ts.Getenv("NODE_TOKEN"), ts.Getenv("NODE_KEY"))
	ts.Check(node.Post(context.Background(), args[0], rand.Text(), []byte(body)))
}

func greater(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: greater PATH NUMBER")
	}
	var answer map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &answer))
	have, err := strconv.ParseInt(string(answer[args[0]]), 10, 64)
	ts.Check(err)
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	if have <= least {
		ts.Fatalf("%s is %d, want more than %d", args[0], have, least)
	}
}

func certificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: certificate CERT KEY DAYS")
	}
	days, err := strconv.Atoi(args[2])
	ts.Check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	end := time.Now().Add(time.Duration(days) * 24 * time.Hour)
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-365 * 24 * time.Hour), NotAfter: end, DNSNames: []string{"core.example"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	ts.Check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

func coreURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: core-url NAME TOKEN")
	}
	token, err := wire.ParseJoinToken(args[1])
	ts.Check(err)
	ts.Setenv(args[0], token.CoreURL)
}

func writeFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: write-file FILE TEXT")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]), 0o600))
}

func panelFile(t *testing.T) scripttest.Command {
	root, err := filepath.Abs("internal/importer/testdata")
	if err != nil {
		t.Fatal(err)
	}
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: panel-file PATH FILE")
		}
		raw, err := os.ReadFile(filepath.Join(root, args[0]))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), raw, 0o600))
	}
}
