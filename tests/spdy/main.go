// Asks the SPDY code that Kubernetes itself uses what it reads in random and mutated byte streams, and writes it down.
//
//	go run . COUNT SEED answers.json
//
// A case is what one side of a connection might send: frames written by spdystream's own framer (or, for those it
// cannot write, by hand), most of them then damaged. The answer is every frame that spdystream reads from it, until an
// error or the end. tests/it/spdy_go.rs holds Kustody's decoder to the answers and says where and why the two differ.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/spdystream/spdy"
)

type answer struct {
	// Whether a client sent it.
	Client bool `json:"client"`
	// What was sent, in base64.
	Bytes string `json:"bytes"`
	// What was read, one line a frame.
	Frames []string `json:"frames"`
	// What ended it; empty at a clean end.
	Error string `json:"error"`
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: %s COUNT SEED answers.json", os.Args[0]))
	}
	count, err := strconv.Atoi(os.Args[1])
	fail(err)
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	fail(err)
	random := rand.New(rand.NewSource(seed))
	var out bytes.Buffer
	out.WriteString("[")
	for n := range count {
		client := random.Intn(2) == 0
		sent := damaged(random, written(random, client))
		frames, problem := read(sent)
		line, err := json.Marshal(answer{client, base64.StdEncoding.EncodeToString(sent), frames, problem})
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

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A few frames as one side writes them.
func written(random *rand.Rand, client bool) []byte {
	var out bytes.Buffer
	framer, err := spdy.NewFramer(&out, &bytes.Buffer{})
	fail(err)
	next := spdy.StreamId(1)
	for range 1 + random.Intn(6) {
		stream := spdy.StreamId(1 + 2*random.Intn(4))
		var frame spdy.Frame
		switch kind := random.Intn(10); {
		case kind < 3 && client:
			frame = &spdy.SynStreamFrame{StreamId: next, Headers: headers(random), CFHeader: fin(random)}
			next += 2
		case kind < 3:
			frame = &spdy.SynReplyFrame{StreamId: stream, Headers: headers(random), CFHeader: fin(random)}
		case kind == 3:
			frame = &spdy.RstStreamFrame{StreamId: stream, Status: spdy.RstStreamStatus(1 + random.Intn(11))}
		case kind == 4:
			frame = &spdy.SettingsFrame{FlagIdValues: []spdy.SettingsFlagIdValue{{Id: 4, Value: random.Uint32()}}}
		case kind == 5:
			frame = &spdy.PingFrame{Id: 1 + uint32(random.Intn(9))}
		case kind == 6:
			frame = &spdy.GoAwayFrame{LastGoodStreamId: stream, Status: spdy.GoAwayStatus(random.Intn(3))}
		case kind == 7:
			frame = &spdy.HeadersFrame{StreamId: stream, Headers: headers(random), CFHeader: fin(random)}
		case kind == 8:
			frame = &spdy.WindowUpdateFrame{StreamId: stream, DeltaWindowSize: 1 + uint32(random.Intn(99))}
		default:
			data := make([]byte, random.Intn(40))
			random.Read(data)
			frame = &spdy.DataFrame{StreamId: stream, Flags: spdy.DataFlags(random.Intn(2)), Data: data}
		}
		fail(framer.WriteFrame(frame))
	}
	return out.Bytes()
}

func fin(random *rand.Rand) spdy.ControlFrameHeader {
	return spdy.ControlFrameHeader{Flags: spdy.ControlFlags(random.Intn(2))}
}

func headers(random *rand.Rand) http.Header {
	found := http.Header{}
	for _, name := range []string{"streamtype", "port", "requestid", "x"} {
		if random.Intn(2) == 0 {
			found[name] = []string{[]string{"stdin", "error", "80", "", "0"}[random.Intn(5)]}
		}
		if random.Intn(20) == 0 {
			found[name] = append(found[name], "again")
		}
	}
	return found
}

// Nothing, or a few changes of the kind that makes two readers disagree.
func damaged(random *rand.Rand, sent []byte) []byte {
	for range random.Intn(4) {
		if len(sent) == 0 {
			break
		}
		at := random.Intn(len(sent))
		switch random.Intn(7) {
		case 0:
			sent[at] ^= 1 << random.Intn(8)
		case 1:
			sent[at] = byte(random.Intn(256))
		case 2:
			sent = sent[:at]
		case 3:
			sent = append(sent[:at:at], sent[min(at+1+random.Intn(4), len(sent)):]...)
		case 4:
			sent = append(sent[:at:at], append([]byte{0, byte(random.Intn(256))}, sent[at:]...)...)
		case 5:
			// The head of a control frame of any type, with a length that may lie.
			head := []byte{0x80, 3, 0, byte(random.Intn(12)), byte(random.Intn(3)), 0, 0, byte(random.Intn(20))}
			sent = append(head, sent...)
		default:
			// A length field near a frame's beginning.
			if len(sent) >= 8 {
				binary.BigEndian.PutUint32(sent[4:], uint32(random.Intn(64)))
			}
		}
	}
	return sent
}

func read(sent []byte) ([]string, string) {
	frames := []string{}
	rest := bytes.NewReader(sent)
	framer, err := spdy.NewFramer(&bytes.Buffer{}, rest)
	fail(err)
	for {
		if rest.Len() == 0 {
			return frames, ""
		}
		frame, err := framer.ReadFrame()
		if err != nil {
			return frames, err.Error()
		}
		frames = append(frames, line(frame))
	}
}

func line(frame spdy.Frame) string {
	switch f := frame.(type) {
	case *spdy.SynStreamFrame:
		return fmt.Sprintf("syn-stream %d %v %s", f.StreamId, f.CFHeader.Flags&1 != 0, list(f.Headers))
	case *spdy.SynReplyFrame:
		return fmt.Sprintf("syn-reply %d %v %s", f.StreamId, f.CFHeader.Flags&1 != 0, list(f.Headers))
	case *spdy.RstStreamFrame:
		return fmt.Sprintf("rst-stream %d %d", f.StreamId, f.Status)
	case *spdy.SettingsFrame:
		return fmt.Sprintf("settings %d", len(f.FlagIdValues))
	case *spdy.PingFrame:
		return fmt.Sprintf("ping %d", f.Id)
	case *spdy.GoAwayFrame:
		return fmt.Sprintf("go-away %d %d", f.LastGoodStreamId, f.Status)
	case *spdy.HeadersFrame:
		return fmt.Sprintf("headers %d %v %s", f.StreamId, f.CFHeader.Flags&1 != 0, list(f.Headers))
	case *spdy.WindowUpdateFrame:
		return fmt.Sprintf("window-update %d %d", f.StreamId, f.DeltaWindowSize)
	case *spdy.DataFrame:
		return fmt.Sprintf("data %d %v %x", f.StreamId, f.Flags&1 != 0, f.Data)
	}
	return fmt.Sprintf("%T", frame)
}

// Names sorted, values in hex: what a header is asked for, its values joined.
func list(headers http.Header) string {
	lines := []string{}
	for name, values := range headers {
		lines = append(lines, fmt.Sprintf("%x=%x", strings.ToLower(name), strings.Join(values, "\x00")))
	}
	sort.Strings(lines)
	return strings.Join(lines, ",")
}
