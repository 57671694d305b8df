package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
)

// What tells a channel's reader that everything before has been read.
var mark = []byte("everything before this has been read")

// A connection that has received some bytes and then ends.
type wire struct {
	rest []byte
	// Nothing is read before it is closed.
	opened chan struct{}
	// Called once when all bytes have been taken and somebody waits for more.
	quiet  func()
	closed chan struct{}
	once   sync.Once
}

func (w *wire) Read(p []byte) (int, error) {
	<-w.opened
	if len(w.rest) == 0 {
		if w.quiet != nil {
			quiet := w.quiet
			w.quiet = nil
			quiet()
		}
		return 0, io.EOF
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error)      { return len(p), nil }
func (w *wire) Close() error                     { w.once.Do(func() { close(w.closed) }); return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// An answer to an HTTP request that becomes a connection.
type hijacked struct {
	*httptest.ResponseRecorder
	wire *wire
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.wire, bufio.NewReadWriter(bufio.NewReader(h.wire), bufio.NewWriter(h.wire)), nil
}

func upgrade(protocol string) *http.Request {
	request := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	request.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if protocol != "" {
		request.Header.Set("Sec-WebSocket-Protocol", protocol)
	}
	return request
}

// The channels as the API server's translator and the streaming server of container runtimes set them up. Of exec and
// attach: stdin where it was asked for, sizes always. Of port-forward: data and errors for each port.
func setUp(about *answer) map[string]wsstream.ChannelProtocolConfig {
	channels := []wsstream.ChannelType{
		wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel,
	}
	if about.Stdin {
		channels[0] = wsstream.ReadChannel
	}
	if about.Reader == "ports" {
		channels = nil
		for range 3 {
			channels = append(channels, wsstream.ReadWriteChannel, wsstream.WriteChannel)
		}
	}
	protocols := map[string]wsstream.ChannelProtocolConfig{}
	for _, name := range []string{"", "channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io", "base64.channel.k8s.io", "v4.base64.channel.k8s.io"} {
		protocols[name] = wsstream.ChannelProtocolConfig{Binary: !strings.Contains(name, "base64"), Channels: channels}
	}
	return protocols
}

// What comes out of the channels that a client writes, until the bytes end and until the connection ends.
func readChannels(found *answer, sent []byte) {
	var streams []io.ReadWriteCloser
	opened := make(chan struct{})
	connection := &wire{rest: sent, opened: opened, closed: make(chan struct{})}
	found.End = "ended"
	// Runs where the next message would be received: all before are done with.
	connection.quiet = func() {
		found.End = ""
		told := mark
		if strings.Contains(found.Protocol, "base64") {
			told = []byte(base64.StdEncoding.EncodeToString(mark))
		}
		for number := range streams {
			if _, err := streams[number].(interface{ DataFromSocket([]byte) (int, error) }).DataFromSocket(told); err != nil {
				found.Closed = append(found.Closed, number)
			}
		}
	}
	_, streams, err := wsstream.NewConn(setUp(found)).Open(hijacked{httptest.NewRecorder(), connection}, upgrade(found.Protocol))
	fail(err)
	var readers sync.WaitGroup
	var lock sync.Mutex
	found.Read, found.Late = map[int][]string{}, map[int][]string{}
	for number, stream := range streams {
		readers.Add(1)
		go func() {
			defer readers.Done()
			into := found.Read
			buffer := make([]byte, 1<<16)
			for {
				n, err := stream.Read(buffer)
				if err != nil {
					return
				}
				if bytes.Equal(buffer[:n], mark) {
					into = found.Late
					continue
				}
				lock.Lock()
				into[number] = append(into[number], encoded(buffer[:n]))
				lock.Unlock()
			}
		}()
	}
	close(opened)
	<-connection.closed
	readers.Wait()
}
