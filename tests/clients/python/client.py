"""A client of exec, attach and port-forward as Python programs are: the package kubernetes.

Its command line is that of all programs of this folder; tests/e2e/clients.rs runs them and says what they must see.
`-over v4.channel.k8s.io` offers that alone, as older versions of the package do. Without v5 there is no half-close:
the end of standard input is then told to nobody.
"""

import argparse
import json
import os
import select
import sys
import threading
import time

from kubernetes import client, config
from kubernetes.stream import portforward, stream

CHUNK = 64 * 1024
BETWEEN_SIZES = 0.5


def typed():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["exec", "attach", "port-forward"])
    parser.add_argument("-over", default="")
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-t", default="")
    parser.add_argument("namespace")
    parser.add_argument("pod")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser.parse_args()


class Output:
    """What came, passed on as it comes."""

    def __init__(self, opened):
        self.opened = opened

    def pump(self, timeout):
        self.opened.update(timeout=timeout)
        for channel, to in ((1, sys.stdout.buffer), (2, sys.stderr.buffer)):
            data = self.opened.read_channel(channel)
            to.write(data)
            to.flush()


def feed(opened, output):
    """Passes standard input on; what comes meanwhile is passed on too."""
    while opened.is_open():
        ready, _, _ = select.select([sys.stdin.buffer], [], [], 0)
        if not ready:
            output.pump(0.05)
            continue
        data = os.read(sys.stdin.fileno(), CHUNK)
        if not data:
            opened.close_channel(0)
            return
        opened.write_stdin(data)
        output.pump(0)


def resize(opened, sizes):
    for size in sizes:
        rows, columns = size.split("x")
        opened.write_channel(4, json.dumps({"Height": int(rows), "Width": int(columns)}).encode())
        time.sleep(BETWEEN_SIZES)


def run(api, asked):
    terminal = asked.t != ""
    call = api.connect_get_namespaced_pod_exec if asked.verb == "exec" else api.connect_get_namespaced_pod_attach
    wanted = {"command": asked.rest} if asked.verb == "exec" else {}
    opened = stream(
        call, asked.pod, asked.namespace, stdin=asked.i, stdout=True, stderr=not terminal, tty=terminal,
        _preload_content=False, binary=True, **wanted,
    )
    output = Output(opened)
    if terminal:
        threading.Thread(target=resize, args=(opened, asked.t.split(",")), daemon=True).start()
    if asked.i:
        feed(opened, output)
    while opened.is_open():
        output.pump(1)
    output.pump(0)
    return opened.returncode


def forward(api, asked):
    port = int(asked.rest[0])
    forwarded = portforward(api.connect_get_namespaced_pod_portforward, asked.pod, asked.namespace, ports=str(port))
    connection = forwarded.socket(port)
    connection.setblocking(True)
    connection.sendall(sys.stdin.buffer.read())
    while data := connection.recv(CHUNK):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    connection.close()
    if forwarded.error(port):
        print(forwarded.error(port), file=sys.stderr)
        return 1
    return 0


def main():
    asked = typed()
    config.load_kube_config(os.environ["KUBECONFIG"])
    if asked.over:
        api = client.CoreV1Api(client.ApiClient(header_name="sec-websocket-protocol", header_value=asked.over))
    else:
        api = client.CoreV1Api()
    return forward(api, asked) if asked.verb == "port-forward" else run(api, asked)


if __name__ == "__main__":
    sys.exit(main())
