"""The worker against the vectors, without a server: python3 -m unittest discover sdk/python/tests"""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from gristmill_worker import wire  # noqa: E402
from gristmill_worker.context import Context  # noqa: E402

LINES = [line.split(" ", 1) for line in (HERE / "worker-v0.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
VECTORS = {name: bytes.fromhex(digits) for name, digits in LINES}


def context(rows: dict[bytes, bytes]) -> Context:
    """Over a grain with one map."""

    def ask(wanted: list[bytes]) -> list[wire.Found]:
        read = wire.Reader(wanted[0])
        if read.u8() == 1:
            read.text()
            return [rows.get(read.bytes())]
        read.text()
        first, before, limit, reverse = read.bytes(), read.option(), read.varint(), read.u8() == 1
        found = sorted(it for it in rows.items() if first <= it[0] and (before is None or it[0] < before))
        return [(found[::-1] if reverse else found)[:limit]]

    run = wire.Run(0, 1, 1, "t", "h", b"k", 0, True, None, None, [])
    return Context(run, ask)


class Vectors(unittest.TestCase):
    def test_frames_of_the_worker(self) -> None:
        self.assertEqual(wire.hello(b"secret", "a", 64, "w1"), VECTORS["hello"])
        self.assertEqual(wire.beat(7), VECTORS["beat"])
        one = context({})
        one.set_value((1).to_bytes(8, "big"))
        one.effects.append(b"\1" + wire.blob(b"v") + wire.varint(5_000_000))
        one.put("m", b"a", b"1")
        one.effects.append(b"\3" + wire.blob("m") + wire.blob(b"b") + wire.blob(b"2") + wire.varint(7))
        one.delete_range("m", b"x")
        one.invoke_then("t", b"k", "h", b"p", "back", b"c", True)
        one.append("top", b"k", b"v")
        one.set_timer("t", 9, "h", b"p")
        one.cancel_timer("t")
        one.count("hits", 2, color="red")
        one.gauge("level", 1.5)
        one.gauge_add("level", -1)
        one.log("warn", "careful")
        ended = [
            wire.run_key(1, 5) + wire.done([b"ok", None]) + wire.effects(one.effects),
            wire.run_key(1, 6) + wire.deferred([], 2_000_000) + wire.effects([]),
            wire.run_key(1, 7) + wire.failed(0, "no-funds", "3 are left", 1000) + wire.effects([]),
            wire.run_key(1, 8) + wire.again(1) + wire.effects([]),
        ]
        self.assertEqual(wire.verdicts(7, ended), VECTORS["verdicts"])

    def test_frames_to_the_worker(self) -> None:
        body = wire.Reader(VECTORS["runs"][5:])
        self.assertEqual((body.u64(), body.varint()), (7, 1))
        run = wire.read_run(body)
        body.end()
        self.assertEqual((run.shard, run.number, run.table, run.handler, run.key), (1, 5, "counts", "count", b"k"))
        self.assertEqual((run.value, run.caught), (b"\1\2", ("bad", "why", 3)))
        causes = [wire.Event(b"k", 300, 7), wire.Invoke(), wire.Message(), wire.Response(b"c", True), wire.Timer("t", 9, 2)]
        causes.append(wire.Control(300, 2, True))
        self.assertEqual([one.cause for one in run.inputs], causes)
        self.assertEqual(run.inputs[4].id, 1 << 100)
        body = wire.Reader(VECTORS["rows"][5:])
        self.assertEqual((body.u64(), body.u16(), body.u64(), body.varint()), (7, 1, 5, 4))
        found = [wire.read_found(body) for _ in range(4)]
        self.assertEqual(found[:3], [None, b"x", [(b"a", b"1")]])
        self.assertIsInstance(found[3], wire.ProtocolError)

    def test_frames_that_end_too_early(self) -> None:
        frame = VECTORS["runs"]
        for cut in range(5, len(frame)):
            with self.assertRaises(wire.ProtocolError):
                body = wire.Reader(frame[5:cut])
                body.u64(), body.varint()
                wire.read_run(body)


class OwnWrites(unittest.TestCase):
    def test_a_range_shows_what_the_run_has_written(self) -> None:
        one = context({bytes([at]): b"old" for at in range(10)})
        one.delete_range("m", b"\x02", b"\x05")
        one.put("m", b"\x03", b"new")
        one.delete("m", b"\x07")
        keys = [key[0] for key, _ in one.range("m")]
        self.assertEqual(keys, [0, 1, 3, 5, 6, 8, 9])
        self.assertEqual([key[0] for key, _ in one.range("m", limit=3, reverse=True)], [9, 8, 6])
        self.assertEqual([key[0] for key, _ in one.range("m", b"\x01", limit=2)], [1, 3])
        self.assertEqual((one.get("m", b"\x02"), one.get("m", b"\x03"), one.get("m", b"\x08")), (None, b"new", b"old"))


if __name__ == "__main__":
    unittest.main()
