"""Holds gristmill_client.py against the golden vectors: what it sends and what it reads. No server is needed."""
import json, pathlib, sys

sys.dont_write_bytecode = True
import gristmill_client as gristmill

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "vectors"
SHOP = {"topics": [{"name": "orders", "id": 1, "lanes": 64}], "tables": [
    {"name": "stock", "id": 2, "maps": [{"name": "sold", "id": 0}], "handlers": [{"name": "take", "id": 5}]}]}


def vector(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


class Loopback(gristmill.Client):
    """A client whose server is a pair of vectors: what it sends must be the first, what it gets is the second."""

    def expect(self, request, reply):
        self.socket, self.request, self.reply = None, vector(request), vector(reply)
        self.session, self.apps, self.slots = 65537, {"shop": SHOP}, [0] * 256
        fields = self.request["meaning"][0]["fields"]
        # The slot does not matter here; its next number does.
        self.next = dict.fromkeys(range(256), fields.get("seq", 1))
        self.socket = self
        return self

    def sendall(self, sent):
        golden = bytes.fromhex(self.request["bytes"])
        assert sent[12:16] == golden[12:16] and sent == golden, f"{self.request['name']}: {sent.hex()}"

    def exchange(self, code, body):
        self.correlation = 6
        self.stream = __import__("io").BytesIO(bytes.fromhex(self.reply["bytes"]))
        return super().exchange(code, body)

    def close(self):
        pass


def main():
    client = Loopback(name=b"vectors 1.0")
    expect = client.expect
    value = vector("produce")["meaning"][0]["fields"]["value"].encode()
    expect("hello", "ok-hello")
    client.session, client.key, connect = 0, bytes(16), gristmill.socket.create_connection
    gristmill.socket.create_connection = lambda *_: client
    client.makefile = lambda _: None
    client.connect()
    gristmill.socket.create_connection = connect
    hello = vector("ok-hello")["meaning"][0]["reply"]
    assert (client.session, list(client.ports), list(client.slots)) == (hello["session"], hello["ports"], hello["slots"])
    assert client.key.hex() == hello["key"]
    assert client.directory.hex() == hello["data_directory"]
    expect("produce", "ok-produce")
    assert client.produce("shop/orders", b"foobar", value) == (62, 1000000)
    assert client.next[62 + 64] == 2, "the number of the lane's home slot moves on"
    expect("read", "ok-read")
    assert client.read("shop/orders", 62, 1, 100, 1 << 20, 500) == (4, 3, [(2, 1, 2, b"k", b"v", [("h", b"x")])])
    assert expect("get", "ok-get").get("shop/stock", b"foobar") == b"one"
    expect("put", "ok-put").put("shop/stock", b"foobar", b"one")
    assert client.next[190] == 2, "the number of the key's slot moves on"
    assert expect("map-get", "ok-map-get").map_get("shop/stock", "sold", b"t", b"the") == bytes(7) + b"\7"
    assert expect("invoke", "ok-invoke").invoke("shop/stock", b"foobar", "take", b"5") == b"15"
    expect("describe", "ok-describe").apps = {}
    described = vector("ok-describe")["meaning"][0]["reply"]["json"]
    assert client.find("word-count/stock") == described["tables"][0]
    failures = [vector(path.stem)["meaning"][0] for path in FOLDER.glob("*.json") if not path.stem.startswith("error-")]
    failures = [failure for failure in failures if failure.get("status", "ok") != "ok"]
    final = 0
    for failure in failures:
        name = failure["status"].replace("_", "-")
        try:
            expect("get", name).exchange(32, bytes.fromhex(client.request["bytes"])[25:])
            raise SystemExit(f"{name} was taken for a success")
        except gristmill.Failure as found:
            assert found.args[1].decode(errors="replace").endswith(failure["message"]), name
            final += found.status in gristmill.TAKEN
    print(f"ok {len(failures)} failures, {final} final")


main()
