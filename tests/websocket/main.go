// Asks the WebSocket code that Kubernetes itself uses what it reads in random and damaged byte streams, and writes it down.
//
//	go run . COUNT SEED answers.json
//
// A case is what one side of a connection might send after the handshake (cases.go); it is read by what would read it:
//
//   - channels: the API server and the container runtime, which read a client with k8s.io/apimachinery's wsstream over
//     golang.org/x/net/websocket (channels.go)
//   - ports: container runtimes, which read port-forwards of three ports in messages the same way
//   - executor: kubectl, which reads the API server with client-go's executor over gorilla/websocket (streams.go)
//   - tunnel-server, tunnel-client: the two ends of a port-forward's tunnel, gorilla/websocket both (streams.go)
//
// The answer is what came out, by channel, and how it ended. tests/it/websocket_go.rs holds Kustody's decoder to the
// answers and says where and why the two differ.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"

	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
)

type answer struct {
	// Who read it.
	Reader string `json:"reader"`
	// The subprotocol of the handshake.
	Protocol string `json:"protocol,omitempty"`
	// The client asked for stdin, and for a terminal.
	Stdin bool `json:"stdin,omitempty"`
	Tty   bool `json:"tty,omitempty"`
	// What was sent, in base64.
	Bytes string `json:"bytes"`
	// What was read on each channel, one entry in base64 for each message (channels, ports), or one for all of it.
	Read map[int][]string `json:"read,omitempty"`
	// What the end of the connection, in the middle of a frame, brought out of it.
	Late map[int][]string `json:"late,omitempty"`
	// Channels that were closed while the session went on.
	Closed []int `json:"closed,omitempty"`
	// How it ended: for channels and ports "ended" when the reader gave up by itself; else its error, "" where there is none.
	End string `json:"end,omitempty"`
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: %s COUNT SEED answers.json", os.Args[0]))
	}
	count, err := strconv.Atoi(os.Args[1])
	fail(err)
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	fail(err)
	quieten()
	random := rand.New(rand.NewSource(seed))
	var out bytes.Buffer
	out.WriteString("[")
	for n := range count {
		line, err := json.Marshal(ask(random, n))
		fail(err)
		if n > 0 {
			out.WriteString(",")
		}
		out.WriteString("\n")
		out.Write(line)
	}
	out.WriteString("\n]\n")
	fail(os.WriteFile(os.Args[3], out.Bytes(), 0o644))
}

// What the readers complain about goes nowhere.
func quieten() {
	runtime.ErrorHandlers = nil
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	fail(flags.Set("logtostderr", "false"))
	fail(flags.Set("stderrthreshold", "FATAL"))
	klog.SetOutput(io.Discard)
}

func ask(random *rand.Rand, n int) answer {
	var found answer
	switch n % 9 {
	case 0, 1, 2, 3:
		protocols := []string{"v5.channel.k8s.io", "v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", "", "v4.base64.channel.k8s.io", "base64.channel.k8s.io"}
		found = answer{Reader: "channels", Protocol: protocols[random.Intn(len(protocols))], Stdin: random.Intn(6) > 0, Tty: random.Intn(3) > 0}
		readChannels(&found, sent(random, &found))
	case 8:
		found = answer{Reader: "ports", Protocol: []string{"v4.channel.k8s.io", "", "v4.base64.channel.k8s.io"}[random.Intn(3)]}
		readChannels(&found, sent(random, &found))
	case 4, 5:
		found = answer{Reader: "executor", Protocol: []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}[random.Intn(2)]}
		readExecutor(&found, sent(random, &found))
	case 6:
		found = answer{Reader: "tunnel-server"}
		readTunnelServer(&found, sent(random, &found))
	default:
		found = answer{Reader: "tunnel-client"}
		readTunnelClient(&found, sent(random, &found))
	}
	return found
}

func (a *answer) fromClient() bool {
	return a.Reader == "channels" || a.Reader == "ports" || a.Reader == "tunnel-server"
}

func encoded(data []byte) string {
	return base64.StdEncoding.EncodeToString(data)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
