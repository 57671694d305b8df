#!/usr/bin/env python3
"""Reads a Kustody recording: the standard library, the `zstd` program, nothing of Kustody's.

    reader.py FOLDER                     every event as a line of JSON, bytes in base64
    reader.py FOLDER stdin|stdout|...    the bytes of one channel, as they were
    reader.py FOLDER connection 3        the bytes of a forwarded connection, to the client

FOLDER holds header.json, the chunks and, once the session has ended, manifest.json. Before anything is printed the
digests are checked: that chunks follow the header without a gap, and that the manifest lists just these. Who signed the
manifest is not: that takes Ed25519 and the public key (`kustody verify`). Exits with 1 and one line where it fails.
"""
import base64
import hashlib
import json
import pathlib
import struct
import subprocess
import sys

CHANNELS = ["stdin", "stdout", "stderr", "error", "resize", "control", "connection"]
KINDS = ["data", "half-close", "resize", "status", "marker", "close", "gap", "connection-opened",
         "connection-data", "connection-half-close", "connection-error", "connection-closed", "input"]
# Magic and length of a skippable frame, KREC, generation, session; behind them in the other byte order the number,
# the digest of the object before, bytes and number of the events, and the times of the first and last one.
HEAD = struct.Struct("<II4sB3x16s")
REST = struct.Struct(">Q32sIIQQ8x")


class Broken(Exception):
    """The recording is not what its format says."""


def item(data, at):
    """Decodes one CBOR item of the kinds that events are made of; gives it and where the next one begins."""
    major, n, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7 and n == 22:
        return None, at
    if 24 <= n <= 27:
        size = 1 << (n - 24)
        n, at = int.from_bytes(data[at:at + size], "big"), at + size
    elif n > 27:
        raise Broken("an item of indefinite length")
    if major == 0:
        return n, at
    if major in (2, 3):
        if at + n > len(data):
            raise Broken("a string that is cut off")
        value = bytes(data[at:at + n])
        return (value if major == 2 else value.decode()), at + n
    if major != 4:
        raise Broken(f"an item of major type {major}")
    items = []
    for _ in range(n):
        value, at = item(data, at)
        items.append(value)
    return items, at


def chunk(path, session, number, link):
    """The events of one chunk as (time_us, kind, place, value), and the digest of the whole object."""
    whole = path.read_bytes()
    magic, length, krec, generation, owner = HEAD.unpack_from(whole)
    sequence, previous, size, count, first_us, last_us = REST.unpack_from(whole, HEAD.size)
    if (magic, length, krec, generation) != (0x184D2A50, 96, b"KREC", 1):
        raise Broken(f"{path.name} is no chunk of generation 1")
    if (owner, sequence) != (session, number):
        raise Broken(f"{path.name} belongs elsewhere")
    if previous != link:
        raise Broken(f"{path.name} does not follow the object before it")
    unpacked = subprocess.run(["zstd", "-dcq"], input=whole, capture_output=True, check=False)
    events, at, time_us, found = unpacked.stdout, 0, first_us, []
    if unpacked.returncode or len(events) != size:
        raise Broken(f"{path.name} cannot be unpacked")
    while at < len(events):
        (delta_us, kind, place, value), at = item(events, at)
        time_us += delta_us
        found.append((time_us, kind, place, value))
    if len(found) != count or (found and found[-1][0] != last_us):
        raise Broken(f"{path.name} has other events than its head says")
    return found, hashlib.sha256(whole).digest()


def read(folder):
    """Every event of a recording in order, after its digests were checked."""
    header = (folder / "header.json").read_bytes()
    session = bytes.fromhex(json.loads(header)["session"].replace("-", ""))
    link, events, digests = hashlib.sha256(header).digest(), [], []
    for number, path in enumerate(sorted(folder.glob("*.krec"))):
        found, link = chunk(path, session, number, link)
        events += found
        digests.append(link.hex())
    manifest = folder / "manifest.json"
    if manifest.exists():
        signed = json.loads(base64.b64decode(json.loads(manifest.read_bytes())["payload"]))
        if signed["header"].removeprefix("sha256:") != hashlib.sha256(header).hexdigest():
            raise Broken("the manifest is of another header")
        if [entry["digest"].removeprefix("sha256:") for entry in signed["chunks"]] != digests:
            raise Broken("the manifest lists other chunks")
        if signed["events"] != len(events):
            raise Broken("the manifest counts other events")
    return events


def plain(value):
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [plain(one) for one in value] if isinstance(value, list) else value


def main(folder, channel=None, connection=None):
    """Prints what the arguments ask for."""
    out = sys.stdout.buffer
    for time_us, kind, place, value in read(pathlib.Path(folder)):
        name, to_client = CHANNELS[place >> 1], bool(place & 1)
        if channel is None:
            line = {"timeUs": time_us, "kind": KINDS[kind], "channel": name, "toClient": to_client, "value": plain(value)}
            out.write(json.dumps(line).encode() + b"\n")
        elif KINDS[kind] == "data" and name == channel:
            out.write(value)
        elif KINDS[kind] == "connection-data" and channel == "connection" and to_client and value[0] == int(connection):
            out.write(value[1])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Broken, OSError, ValueError, KeyError, IndexError, struct.error) as error:
        sys.exit(f"error: {error}")
