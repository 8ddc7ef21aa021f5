"""Drives gristmill_client.py against a server that is killed and started elsewhere in the middle (tests/python.rs)."""
import sys, time

import gristmill_client as gristmill

port, *apps = sys.argv[1:]
client = gristmill.Client(port=int(port), patience=30)
for path in apps:
    with open(path, "rb") as file:
        client.call(5, b"\0" + gristmill.blob(path.encode()[-249:], file.read()))


def number(data):
    return int.from_bytes(data, "big")


def word(text):
    try:
        return number(client.map_get("word-count/words", "counts", text[:1], text))
    except gristmill.Failure as failure:
        assert failure.status == 1, failure.args  # not found
        return 0


def wait_for(text, count):
    end = time.monotonic() + 30
    while word(text) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert word(text) == count, (text, word(text), count)


def append(start, stop):
    for n in range(start, stop):
        lane, offset = client.produce("word-count/lines", b"doc", b'{"doc": "doc", "text": "the live cat %d"}' % n)
        assert offset == n + 1, (n, offset)
    return lane


def check(lines, counts):
    end, following, events = client.read("word-count/lines", lane, 1)
    assert len(events) == lines and following == lines + 1, (end, following, len(events))
    assert [event[0] for event in events] == list(range(1, lines + 1))
    assert events[-1][4] == b'{"doc": "doc", "text": "the live cat %d"}' % (lines - 1)
    assert client.get("loadgen/kv", b"key") == b"value"
    assert number(client.get("loadgen/counter", b"counter")) == counts
    wait_for(b"live", lines)
    wait_for(b"cat", lines)


lane = append(0, 20)
client.put("loadgen/kv", b"key", b"value")
for n in range(1, 6):
    assert number(client.invoke("loadgen/counter", b"counter", "count")) == n
check(20, 5)
session = client.session
print("kill me", flush=True)
port = int(sys.stdin.readline())
client.address = client.address[0], port
check(20, 5)
append(20, 30)
assert number(client.invoke("loadgen/counter", b"counter", "count")) == 6
check(30, 6)
assert client.session == session, "the session goes on over the kill"
client.close()
print("ok", flush=True)
