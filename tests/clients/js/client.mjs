// A client of exec, attach and port-forward as JavaScript programs are: @kubernetes/client-node.
//
// Its command line is that of all programs of this folder; tests/e2e/clients.rs runs them and says what they must see.

import { PassThrough, Writable } from 'node:stream';
import { Attach, Exec, KubeConfig, PortForward } from '@kubernetes/client-node';

const BETWEEN_SIZES = 500;

function typed([verb, ...rest]) {
  const asked = { verb, stdin: false, sizes: [] };
  while (rest[0]?.startsWith('-')) {
    const flag = rest.shift();
    if (flag === '-i') asked.stdin = true;
    else if (flag === '-t') asked.sizes = rest.shift().split(',').map((size) => size.split('x').map(Number));
    else throw new Error(`${flag} is not known here`);
  }
  [asked.namespace, asked.pod, ...asked.rest] = rest;
  return asked;
}

// Passes on at once, so that nothing waits here when the session ends.
function to(stream) {
  return new Writable({ write: (chunk, _, done) => { stream.write(chunk); done(); } });
}

// Standard output, with the sizes of a terminal where there are some.
function output(sizes) {
  const stream = to(process.stdout);
  if (sizes.length === 0) return stream;
  [stream.rows, stream.columns] = sizes[0];
  sizes.slice(1).forEach(([rows, columns], place) => {
    setTimeout(() => {
      [stream.rows, stream.columns] = [rows, columns];
      stream.emit('resize');
    }, BETWEEN_SIZES * (place + 1)).unref();
  });
  return stream;
}

function codeOf(status) {
  if (status.status === 'Success') return 0;
  const cause = status.details?.causes?.find((one) => one.reason === 'ExitCode');
  if (cause) return Number(cause.message);
  process.stderr.write(`error: ${status.message}\n`);
  return 1;
}

async function run(config, asked) {
  const terminal = asked.sizes.length > 0;
  const stdout = output(asked.sizes);
  const stderr = terminal ? null : to(process.stderr);
  const stdin = asked.stdin ? process.stdin : null;
  let code = 0;
  const told = (status) => { code = codeOf(status); };
  const socket = asked.verb === 'exec'
    ? await new Exec(config).exec(
      asked.namespace, asked.pod, undefined, asked.rest, stdout, stderr, stdin, terminal, told)
    : await new Attach(config).attach(asked.namespace, asked.pod, undefined, stdout, stderr, stdin, terminal);
  await new Promise((resolve) => { socket.onclose = resolve; });
  return code;
}

async function forward(config, asked) {
  // The package closes the connection at the end of its input, before the answer has come: it is kept open.
  const input = process.stdin.pipe(new PassThrough(), { end: false });
  const forwarder = new PortForward(config, true);
  const socket = await forwarder.portForward(
    asked.namespace, asked.pod, [Number(asked.rest[0])], to(process.stdout), process.stderr, input);
  await new Promise((resolve) => { socket.onclose = resolve; });
  return 0;
}

const config = new KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const asked = typed(process.argv.slice(2));
const code = await (asked.verb === 'port-forward' ? forward(config, asked) : run(config, asked))
  .catch((error) => { process.stderr.write(`error: ${error.message}\n`); return 1; });
// What was written last may be on its way.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
