"""A small Gristmill client, standard library only, from docs/protocol.md alone; one operation in flight at a time."""
import functools, io, json, socket, time
from struct import calcsize, pack, unpack, unpack_from
TAKEN, CHANGE, LATER, RECONNECT, EXPIRED = {*range(5), 6, 14, 19, 20, 22}, {5, 15, 18}, {7, 10}, {13, 16, 17}, 9 # codes
CRC = [functools.reduce(lambda v, _: v >> 1 ^ 0x82F63B78 * (v & 1), range(8), byte) for byte in range(256)]
def crc32c(data): return functools.reduce(lambda v, b: v >> 8 ^ CRC[(v ^ b) & 255], data, 2**32 - 1) ^ 2**32 - 1
def key_hash(key, m=0x5BD1E995, mask=0xFFFFFFFF):
    h, whole = 0x9747B28C ^ len(key), len(key) // 4
    for k in unpack(f"<{whole}I", key[:4 * whole]):
        k = k * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if len(key) % 4: h = (h ^ int.from_bytes(key[4 * whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF
def varint(n): return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
def blob(*all): return b"".join(varint(len(data)) + data for data in all)
def frame(code, correlation, body):
    body = pack("<BII", code, correlation, len(body)) + body
    head = b"MILL\1\1\0\0" + pack("<I", len(body))
    return head + pack("<I", crc32c(head + body)) + body
class Reader(io.BytesIO):
    def unpack(self, layout): return unpack("<" + layout, self.read(calcsize("<" + layout)))
    def varint(self): byte = self.read(1)[0]; return byte if byte < 128 else byte & 127 | self.varint() << 7
    def blob(self): return self.read(self.varint())
    def more(self): return self.tell() < len(self.getvalue())
    def pairs(self): return [(self.blob().decode(), self.blob()) for _ in range(self.varint())]
class Failure(Exception):  # holds the status and the body of the result
    status = property(lambda self: self.args[0])
class Client:
    def __init__(self, host="127.0.0.1", port=7400, patience=30.0, name=b"gristmill_client.py"):
        self.address, self.patience, self.name, self.apps, self.directory = (host, port), patience, name, {}, None
        self.socket, self.correlation = None, 0; self.forget()
    def close(self): self.socket = self.socket and self.socket.close()
    def forget(self): self.session, self.key, self.next, self.open = 0, bytes(16), {}, {}; self.close()  # by slot
    def connect(self):
        self.socket = socket.create_connection(self.address, self.patience); self.stream = self.socket.makefile("rb")
        reply = Reader(self.exchange(1, pack("<HHIQ16s", 1, 2, 0, self.session, self.key) + blob(self.name, b"", b"")))
        _, _, directory, session, key, *self.limits = reply.unpack("H"), reply.blob(), *reply.unpack("16sQ16s6IHQ")
        self.ports, self.slots = [reply.unpack(f"{reply.varint()}H") for _ in range(2)]
        if self.session and directory != self.directory: raise Failure(EXPIRED, b"another data directory")
        self.session, self.key, self.directory = session, key, directory
    def exchange(self, code, body):  # with one operation in flight a frame holds one result
        self.correlation = (self.correlation + 1) % 0xFFFFFFFF
        self.socket.sendall(frame(code, self.correlation, body))
        head = self.stream.read(16)
        body = self.stream.read(int.from_bytes(head[8:12], "little"))
        good = head[:8] + head[12:] == b"MILL\1\2\0\0" + pack("<I", crc32c(head[:12] + body))
        if not good or unpack_from("<I", body)[0] != self.correlation: raise ConnectionError(head + body)
        if body[4:6] != b"\0\0": raise Failure(unpack_from("<H", body, 4)[0], body[10:])
        return body[10:]
    def call(self, code, body):  # until it has a final result, or patience is at an end
        end, pause = time.monotonic() + self.patience, 0.01
        while True:
            greeted = False
            try: greeted = self.socket or self.connect() or True; return self.exchange(code, body)
            except (OSError, Failure) as error:
                status = getattr(error, "status", None)  # none: the connection was lost
                if not greeted or status is None or status in RECONNECT: self.close()
                if status == EXPIRED: self.forget()
                if status not in {None, *LATER, *RECONNECT} or time.monotonic() > end: raise
            time.sleep(pause); pause = min(2 * pause, 1)
    def settle(self, slot):  # sends the operation that holds the slot's number as often as it takes
        (seq, code, body), status = self.open[slot], 0
        try: return self.call(code, body)
        except (OSError, Failure) as error: status = getattr(error, "status", None); raise
        finally:
            if status in CHANGE: self.call(64, pack("<H", slot) + varint(seq) + varint(seq - 1))
            if status in TAKEN | CHANGE: self.next[slot], _ = seq + 1, self.open.pop(slot)
    def change(self, slot, code, head, tail):
        try: slot in self.open and self.settle(slot)  # what an earlier call gave up when its patience was at an end
        except Failure:
            if slot in self.open: raise
        seq = self.next.get(slot, 1)
        self.open[slot] = seq, code, head + varint(seq) + varint(seq - 1) + tail
        return self.settle(slot)
    def find(self, path, kind="tables"):
        app, name = path.split("/")
        if app not in self.apps: self.apps[app] = json.loads(Reader(self.call(4, blob(app.encode()))).blob())
        return next(item for item in self.apps[app][kind] if item["name"] == name)
    def member(self, path, kind, name): return next(m["id"] for m in self.find(path)[kind] if m["name"] == name)
    def id(self, path, kind="tables"): return pack("<I", self.find(path, kind)["id"])
    def slot(self, key): return key_hash(key) % len(self.slots)
    def produce(self, path, key, value, headers=(), event_time=0):  # gives lane and offset
        id, lanes = (self.find(path, "topics")[field] for field in ("id", "lanes"))
        (lane, slots), pairs = (key_hash(key) % lanes, len(self.slots)), [blob(n.encode(), v) for n, v in headers]
        home = lane + lanes * (id % (slots // lanes)) if slots % lanes == 0 else (lane + id) % slots
        tail = pack("<q", event_time) + blob(key, value) + varint(len(pairs)) + b"".join(pairs)
        return unpack("<HQ", self.change(home, 16, pack("<I", id), tail))
    def read(self, path, lane, start=1, most=0, size=0, wait=0):  # gives end, next and events
        reply = Reader(self.call(17, self.id(path, "topics") + pack("<HQIII", lane, start, most, size, wait)))
        event = lambda: reply.more() and (*reply.unpack("Qqq"), reply.blob(), reply.blob(), reply.pairs())
        return (*reply.unpack("QQ"), list(iter(event, False)))  # offset, event time, append time, key, value, headers
    def get(self, path, key): return Reader(self.call(32, self.id(path) + blob(key))).blob()
    def put(self, path, key, value): table = self.id(path); self.change(self.slot(key), 33, table, blob(key, value))
    def map_get(self, path, map, key, entry):
        body = self.id(path) + pack("<H", self.member(path, "maps", map)) + blob(key, entry)
        return Reader(self.call(35, body)).blob()
    def invoke(self, path, key, handler, payload=b""):
        head = self.id(path) + pack("<I", self.member(path, "handlers", handler))
        return Reader(self.change(self.slot(key), 48, head, blob(key, payload))).blob()
