package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/rand"
	"strings"
)

const (
	continuation = 0
	text         = 1
	binaryData   = 2
	closing      = 8
	ping         = 9
	pong         = 10
)

type frame struct {
	final    bool
	reserved byte
	opcode   byte
	masked   bool
	// How the length is written: 0 is as short as possible, else the number of bytes behind the second.
	width int
	// What is said about the length instead of the truth.
	lie     uint64
	payload []byte
}

// What one side of a connection sends: a third as it should be, a third of irregular frames, a third with damaged
// bytes. The bytes are noted in the answer.
func sent(random *rand.Rand, about *answer) []byte {
	frames := conversation(random, about)
	kind := random.Intn(3)
	if kind == 1 {
		for range 1 + random.Intn(2) {
			frames = irregular(random, frames)
		}
	}
	var out []byte
	for _, one := range frames {
		out = append(out, one.bytes(random)...)
	}
	if kind == 2 {
		out = damaged(random, out)
	}
	about.Bytes = encoded(out)
	return out
}

func (f *frame) bytes(random *rand.Rand) []byte {
	first, second := f.reserved<<4|f.opcode, byte(0)
	if f.final {
		first |= 0x80
	}
	if f.masked {
		second = 0x80
	}
	length := uint64(len(f.payload))
	if f.lie != 0 {
		length = f.lie
	}
	width := f.width
	if width == 0 && length > 125 {
		width = 2
	}
	if length > 0xffff {
		width = 8
	}
	out := []byte{first}
	switch width {
	case 2:
		out = binary.BigEndian.AppendUint16(append(out, second|126), uint16(length))
	case 8:
		out = binary.BigEndian.AppendUint64(append(out, second|127), length)
	default:
		out = append(out, second|byte(length))
	}
	if !f.masked {
		return append(out, f.payload...)
	}
	key := make([]byte, 4)
	random.Read(key)
	out = append(out, key...)
	for n, b := range f.payload {
		out = append(out, b^key[n%4])
	}
	return out
}

// Regular frames: messages of which some are in fragments, with pings and pongs between, and often a close frame.
func conversation(random *rand.Rand, about *answer) []frame {
	var all []frame
	add := func(final bool, opcode byte, payload []byte) {
		all = append(all, frame{final: final, opcode: opcode, masked: about.fromClient(), payload: payload})
	}
	for range 1 + random.Intn(5) {
		opcode, payload := message(random, about)
		if random.Intn(8) == 0 {
			for len(payload) > 0 && random.Intn(3) > 0 {
				cut := random.Intn(len(payload) + 1)
				add(false, opcode, payload[:cut])
				opcode, payload = continuation, payload[cut:]
				if random.Intn(4) == 0 {
					add(true, ping, []byte("between"))
				}
			}
		}
		add(true, opcode, payload)
		if bytes.Equal(payload, []byte{255, 4}) && random.Intn(2) == 0 {
			add(true, binaryData, []byte("\x04{\"Width\":1,\"Height\":2}"))
		}
		if random.Intn(6) == 0 {
			add(true, byte(ping+random.Intn(2)), letters(random, random.Intn(8)))
		}
	}
	if random.Intn(3) == 0 {
		add(true, closing, reason(random, []int{1000, 1000, 1001, 1008, 1011, 3000, 4999}))
	}
	return all
}

func reason(random *rand.Rand, codes []int) []byte {
	if random.Intn(5) == 0 {
		return nil
	}
	code := uint16(codes[random.Intn(len(codes))])
	return append(binary.BigEndian.AppendUint16(nil, code), letters(random, random.Intn(4))...)
}

func letters(random *rand.Rand, count int) []byte {
	out := make([]byte, count)
	for n := range out {
		out[n] = "abcdef \n0123"[random.Intn(12)]
	}
	return out
}

// One message as this reader's peer may send it.
func message(random *rand.Rand, about *answer) (byte, []byte) {
	content := letters(random, random.Intn(12))
	switch random.Intn(40) {
	case 0:
		content = letters(random, 120+random.Intn(20))
	case 1:
		// No UTF-8.
		content = []byte{0xff, 0xc0, 0x80, 'x'}
	}
	if strings.HasPrefix(about.Reader, "tunnel") {
		return binaryData, content
	}
	opcode := byte(binaryData)
	if random.Intn(25) == 0 {
		opcode = text
	}
	if about.Reader == "executor" {
		return opcode, fromServer(random, content)
	}
	channel := byte(0)
	kind := random.Intn(10)
	if about.Reader == "ports" {
		channel, kind = byte(random.Intn(8)), []int{3, 7}[random.Intn(2)]
	}
	switch kind {
	case 0, 8:
		channel, content = 4, []byte(`{"Width":80,"Height":24}`)
	case 1:
		channel = []byte{1, 2, 3, 5, 9, 127, 208, 254}[random.Intn(8)]
	case 2, 9:
		// The half-close signal, also of other channels and malformed.
		forms := [][]byte{{255, 0}, {255, 0}, {255, 0}, {255, 4}, {255, 4}, {255, 4}, {255, 1}, {255}, {255, 0, 0}, {255, 9}}
		return opcode, forms[random.Intn(len(forms))]
	case 3:
		if random.Intn(3) == 0 {
			return opcode, nil
		}
	}
	if !strings.Contains(about.Protocol, "base64") {
		return opcode, append([]byte{channel}, content...)
	}
	if random.Intn(25) > 0 {
		opcode = text
	}
	written := base64.StdEncoding.EncodeToString(content)
	switch random.Intn(12) {
	case 0:
		written = strings.TrimRight(written, "=")
	case 1:
		written = base64.URLEncoding.EncodeToString([]byte{0xff, 0xfe, 0xfd})
	case 2:
		written += base64.StdEncoding.EncodeToString([]byte("again"))
	case 3:
		at := random.Intn(len(written) + 1)
		written = written[:at] + []string{"\r\n", "\n", " ", "!", "=", "\x00"}[random.Intn(6)] + written[at:]
	case 4:
		// Bits behind the end.
		written = []string{"aR==", "aWR=", "/x==", "//9="}[random.Intn(4)]
	}
	return opcode, append([]byte{'0' + channel}, written...)
}

func fromServer(random *rand.Rand, content []byte) []byte {
	switch random.Intn(16) {
	case 0:
		return append([]byte{3}, `{"status":"Success"}`...)
	case 1:
		return append([]byte{3}, `{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}`...)
	case 2:
		return [][]byte{{255, 1}, {255, 2}, {255}, {255, 1, 1}, {255, 200}}[random.Intn(5)]
	case 3:
		return append([]byte{[]byte{0, 4, 5, 200, 254}[random.Intn(5)]}, content...)
	case 4:
		if random.Intn(3) == 0 {
			return nil
		}
	}
	return append([]byte{byte(1 + random.Intn(2))}, content...)
}

// Makes one frame what it must not be.
func irregular(random *rand.Rand, frames []frame) []frame {
	at := random.Intn(len(frames))
	one := &frames[at]
	switch random.Intn(14) {
	case 0:
		one.reserved = byte(1 + random.Intn(7))
	case 1:
		one.opcode = []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15}[random.Intn(10)]
	case 2:
		one.masked = !one.masked
	case 3, 4:
		one.width = []int{2, 8}[random.Intn(2)]
	case 5:
		one.width, one.lie = 8, 1<<63|uint64(len(one.payload))
	case 6:
		one.width, one.lie = 8, []uint64{32<<20 + 1, 1 << 32, 1 << 40, 1<<63 - 1}[random.Intn(4)]
	case 7:
		one.width, one.lie = 8, []uint64{32 << 20, 1 << 16, 1 << 20}[random.Intn(3)]
	case 8:
		one.opcode, one.payload = []byte{closing, ping, pong}[random.Intn(3)], letters(random, 126+random.Intn(9))
	case 9:
		one.opcode, one.final, one.payload = []byte{closing, ping, pong}[random.Intn(3)], false, nil
	case 10:
		one.opcode = continuation
	case 11:
		one.final = false
	case 12:
		one.opcode, one.payload = closing, []byte{3}
	default:
		codes := []int{0, 999, 1004, 1005, 1006, 1007, 1012, 1013, 1014, 1015, 1016, 2999, 5000, 65535}
		one.opcode, one.payload = closing, reason(random, codes)
		if random.Intn(4) == 0 && len(one.payload) >= 2 {
			one.payload = append(one.payload[:2], 0xff)
		}
	}
	return frames
}

// A few changes of the kind that makes two readers disagree.
func damaged(random *rand.Rand, sent []byte) []byte {
	for range 1 + random.Intn(3) {
		if len(sent) == 0 {
			break
		}
		at := random.Intn(len(sent))
		switch random.Intn(6) {
		case 0:
			sent[at] ^= 1 << random.Intn(8)
		case 1:
			sent[at] = byte(random.Intn(256))
		case 2, 3:
			sent = sent[:at]
		case 4:
			sent = append(sent[:at:at], sent[min(at+1+random.Intn(4), len(sent)):]...)
		default:
			sent = append(sent[:at:at], append([]byte{byte(random.Intn(256))}, sent[at:]...)...)
		}
	}
	return sent
}
