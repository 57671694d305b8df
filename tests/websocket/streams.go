package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

// A server that takes one WebSocket, sends it the bytes and ends. Gives its address.
func server(protocol string, sent []byte) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	go func() {
		connection, err := listener.Accept()
		fail(err)
		fail(listener.Close())
		request, err := http.ReadRequest(bufio.NewReader(connection))
		fail(err)
		digest := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		head += "Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(digest[:]) + "\r\n"
		if protocol != "" {
			head += "Sec-WebSocket-Protocol: " + protocol + "\r\n"
		}
		_, err = connection.Write(append([]byte(head+"\r\n"), sent...))
		fail(err)
		fail(connection.(*net.TCPConn).CloseWrite())
		io.Copy(io.Discard, connection)
		connection.Close()
	}()
	return listener.Addr().String()
}

// What kubectl's executor writes to stdout and stderr, and the error it ends with.
func readExecutor(found *answer, sent []byte) {
	address := "http://" + server(found.Protocol, sent)
	executor, err := remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{Host: address}, http.MethodGet, address, found.Protocol)
	fail(err)
	var stdout, stderr bytes.Buffer
	deadline, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = executor.StreamWithContext(deadline, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	fail(deadline.Err())
	found.Read = map[int][]string{1: {encoded(stdout.Bytes())}, 2: {encoded(stderr.Bytes())}}
	var code exec.CodeExitError
	if errors.As(err, &code) {
		found.End = fmt.Sprintf("exit %d", code.Code)
	} else if err != nil {
		found.End = err.Error()
	}
}

// What comes out of a tunnel at the API server.
func readTunnelServer(found *answer, sent []byte) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	opened := make(chan struct{})
	connection := &wire{rest: sent, opened: opened, closed: make(chan struct{})}
	tunnel, err := upgrader.Upgrade(hijacked{httptest.NewRecorder(), connection}, upgrade(""), nil)
	fail(err)
	close(opened)
	readTunnel(found, tunnel)
}

// What comes out of a tunnel at kubectl.
func readTunnelClient(found *answer, sent []byte) {
	tunnel, _, err := websocket.DefaultDialer.Dial("ws://"+server("", sent), nil)
	fail(err)
	readTunnel(found, tunnel)
}

func readTunnel(found *answer, connection *websocket.Conn) {
	tunnel := portforward.NewTunnelingConnection("tunnel", connection)
	read, err := io.ReadAll(tunnel)
	if err != nil {
		found.End = err.Error()
	}
	found.Read = map[int][]string{0: {encoded(read)}}
	tunnel.Close()
}
