"""Drives gristmill_client.py against a scripted server (tests/python.rs) on the port given. Prints what it saw."""
import sys

sys.dont_write_bytecode = True
import gristmill_client as gristmill


def put(client, value):
    try:
        client.put("shop/stock", b"foobar", value)
        return "ok"
    except gristmill.Failure as failure:
        return str(failure.status)


client = gristmill.Client(port=int(sys.argv[1]), patience=20)
seen = [put(client, value) for value in (b"lost", b"full", b"large", b"parked", b"stopped")]
print(*seen, client.get("shop/stock", b"foobar").decode(), put(client, b"expired"), put(client, b"fresh"))
