// A client of exec, attach and port-forward as Go programs are: client-go over SPDY or over WebSocket. Its command
// line is that of all programs of this folder; tests/e2e/clients.rs runs them and says what they must see.
//
//	client exec|attach [-over spdy|websocket] [-i] [-t ROWSxCOLS,…] NAMESPACE POD [COMMAND…]
//	client port-forward [-over spdy|websocket] NAMESPACE POD PORT
//
// It ends with the exit code of the command. A port-forward is one connection, from standard input to standard output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// betweenSizes is how long a terminal keeps each size.
const betweenSizes = 500 * time.Millisecond

// A request is what was typed.
type request struct {
	verb, namespace, pod string
	rest                 []string
	over, sizes          string
	stdin                bool
}

func main() {
	asked, err := typed(os.Args[1:])
	if err == nil {
		err = asked.run()
	}
	var coded exec.CodeExitError
	if errors.As(err, &coded) {
		os.Exit(coded.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func typed(args []string) (request, error) {
	if len(args) == 0 {
		return request{}, errors.New("say exec, attach or port-forward")
	}
	asked := request{verb: args[0]}
	flags := flag.NewFlagSet(asked.verb, flag.ContinueOnError)
	flags.StringVar(&asked.over, "over", "spdy", "spdy or websocket")
	flags.StringVar(&asked.sizes, "t", "", "a terminal that has these sizes, one after another")
	flags.BoolVar(&asked.stdin, "i", false, "pass standard input on")
	if err := flags.Parse(args[1:]); err != nil {
		return request{}, err
	}
	if flags.NArg() < 2 {
		return request{}, errors.New("a namespace and a pod are missing")
	}
	asked.namespace, asked.pod, asked.rest = flags.Arg(0), flags.Arg(1), flags.Args()[2:]
	return asked, nil
}

func (r request) run() error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	target := client.CoreV1().RESTClient().Get().Resource("pods").Namespace(r.namespace).Name(r.pod)
	switch r.verb {
	case "exec":
		return r.stream(config, target.SubResource("exec").VersionedParams(&corev1.PodExecOptions{
			Command: r.rest, Stdin: r.stdin, Stdout: true, Stderr: r.sizes == "", TTY: r.sizes != "",
		}, scheme.ParameterCodec))
	case "attach":
		return r.stream(config, target.SubResource("attach").VersionedParams(&corev1.PodAttachOptions{
			Stdin: r.stdin, Stdout: true, Stderr: r.sizes == "", TTY: r.sizes != "",
		}, scheme.ParameterCodec))
	case "port-forward":
		return r.forward(config, target.SubResource("portforward"))
	default:
		return fmt.Errorf("%s is not exec, attach or port-forward", r.verb)
	}
}

func (r request) stream(config *rest.Config, target *rest.Request) error {
	executor, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, target.URL().String())
	if r.over == "spdy" {
		executor, err = remotecommand.NewSPDYExecutor(config, http.MethodPost, target.URL())
	}
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Stderr: os.Stderr}
	if r.stdin {
		options.Stdin = os.Stdin
	}
	if r.sizes != "" {
		options.Tty, options.Stderr = true, nil
		if options.TerminalSizeQueue, err = sizesOf(r.sizes); err != nil {
			return err
		}
	}
	return executor.StreamWithContext(context.Background(), options)
}

func (r request) forward(config *rest.Config, target *rest.Request) error {
	if len(r.rest) != 1 {
		return errors.New("name one port")
	}
	dialer, err := r.dialer(config, target)
	if err != nil {
		return err
	}
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.New(dialer, []string{"0:" + r.rest[0]}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	if err := pipe(ports[0].Local); err != nil {
		return err
	}
	close(stop)
	return <-failed
}

func (r request) dialer(config *rest.Config, target *rest.Request) (httpstream.Dialer, error) {
	if r.over != "spdy" {
		return portforward.NewSPDYOverWebsocketDialer(target.URL(), config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target.URL()), nil
}

// pipe is one connection to a port of this machine.
func pipe(port uint16) error {
	connection, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		_, _ = io.Copy(connection, os.Stdin)
		_ = connection.CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, connection)
	return err
}

// sizes are those of a terminal, one after another.
type sizes struct {
	all   []remotecommand.TerminalSize
	first bool
}

func sizesOf(text string) (*sizes, error) {
	queue := &sizes{first: true}
	for _, one := range strings.Split(text, ",") {
		var size remotecommand.TerminalSize
		if _, err := fmt.Sscanf(one, "%dx%d", &size.Height, &size.Width); err != nil {
			return nil, fmt.Errorf("%q is no size: %w", one, err)
		}
		queue.all = append(queue.all, size)
	}
	return queue, nil
}

// Next gives the next size when it is time; after the last there is none.
func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.all) == 0 {
		return nil
	}
	if !s.first {
		time.Sleep(betweenSizes)
	}
	next := s.all[0]
	s.all, s.first = s.all[1:], false
	return &next
}
