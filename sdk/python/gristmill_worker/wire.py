"""Bytes of the worker protocol, version 0: see docs/internals/worker-protocol.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Optional, Union

VERSION = 0
WELCOME, RUNS, ROWS, BYE = 1, 2, 3, 4
HELLO, VERDICTS, READS, BEAT = 16, 17, 18, 19


class ProtocolError(Exception):
    """The server said something that this version does not know."""


@dataclass(frozen=True)
class Event:
    key: bytes
    offset: int
    event_micros: int


@dataclass(frozen=True)
class Invoke:
    pass


@dataclass(frozen=True)
class Message:
    pass


@dataclass(frozen=True)
class Response:
    cookie: bytes
    succeeded: bool


@dataclass(frozen=True)
class Timer:
    name: str
    due_micros: int
    missed: int


@dataclass(frozen=True)
class Control:
    """A version of the app is loaded; `from_version` is the one that the handler heard of before, 0 if none."""

    version: int
    from_version: int
    rolled_back: bool


Cause = Union[Event, Invoke, Message, Response, Timer, Control]


@dataclass(frozen=True)
class Input:
    """One thing to handle: why, what, and an id that is the same in each attempt at it."""

    cause: Cause
    payload: bytes
    id: int


@dataclass(frozen=True)
class Run:
    shard: int
    number: int
    version: int
    table: str
    handler: str
    key: bytes
    now_micros: int
    has_value: bool
    """Whether the value came along; a large one does not."""
    value: Optional[bytes]
    caught: Optional[tuple[str, str, int]]
    inputs: list[Input] = field(default_factory=list)


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise ProtocolError(f"the frame ends too early: {end - len(self.data)} bytes are missing")
        part, self.at = self.data[self.at : end], end
        return part

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(struct.unpack("<H", self.take(2))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ProtocolError("a variable-length number is malformed")

    def bytes(self) -> bytes:
        return self.take(self.varint())

    def text(self) -> str:
        return self.bytes().decode("utf-8")

    def option(self) -> Optional[bytes]:
        return self.bytes() if self.u8() else None

    def end(self) -> None:
        if self.at != len(self.data):
            raise ProtocolError(f"{len(self.data) - self.at} bytes behind the end")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(data: Union[bytes, str]) -> bytes:
    data = data.encode("utf-8") if isinstance(data, str) else data
    return varint(len(data)) + data


def option(data: Optional[bytes]) -> bytes:
    return b"\0" if data is None else b"\1" + blob(data)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def run_key(shard: int, number: int) -> bytes:
    return struct.pack("<HQ", shard, number)


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<IB", len(body) + 1, kind) + body


def hello(token: bytes, app: str, credits: int, name: str) -> bytes:
    return frame(HELLO, bytes([VERSION]) + blob(token) + blob(app) + varint(credits) + blob(name))


def beat(lease: int) -> bytes:
    return frame(BEAT, u64(lease))


def verdicts(lease: int, ended: list[bytes]) -> bytes:
    """Each of `ended` is a run's key, its result and its effects."""
    return frame(VERDICTS, u64(lease) + varint(len(ended)) + b"".join(ended))


def reads(lease: int, shard: int, number: int, wanted: list[bytes]) -> bytes:
    return frame(READS, u64(lease) + run_key(shard, number) + varint(len(wanted)) + b"".join(wanted))


def effects(done: list[bytes]) -> bytes:
    return varint(len(done)) + b"".join(done)


def done(replies: list[Optional[bytes]]) -> bytes:
    return b"\0" + varint(len(replies)) + b"".join(map(option, replies))


def deferred(replies: list[Optional[bytes]], wait_micros: Optional[int]) -> bytes:
    wait = b"\0" if wait_micros is None else b"\1" + varint(wait_micros)
    return b"\1" + varint(len(replies)) + b"".join(map(option, replies)) + wait


def failed(handled: int, kind: str, message: str, retry_micros: Optional[int] = None, retry: bool = True) -> bytes:
    tail = b"\2" if not retry else b"\0" if retry_micros is None else b"\1" + varint(retry_micros)
    return b"\2" + varint(handled) + blob(kind) + blob(message) + tail


def again(handled: int) -> bytes:
    return b"\3" + varint(handled)


def read_cause(data: Reader) -> Cause:
    kind = data.u8()
    if kind == 0:
        return Event(data.bytes(), data.varint(), data.u64())
    if kind == 1:
        return Invoke()
    if kind == 2:
        return Message()
    if kind == 3:
        return Response(data.bytes(), data.u8() == 1)
    if kind == 4:
        return Timer(data.text(), data.u64(), data.varint())
    if kind == 5:
        return Control(data.varint(), data.varint(), data.u8() == 1)
    raise ProtocolError(f"{kind} is no known cause")


def read_run(data: Reader) -> Run:
    shard, number, version = data.u16(), data.u64(), data.varint()
    table, handler, key, now = data.text(), data.text(), data.bytes(), data.u64()
    eager = data.u8()
    value = data.bytes() if eager == 1 else None
    caught = (data.text(), data.text(), data.varint()) if data.u8() else None
    inputs = [
        Input(read_cause(data), data.bytes(), int.from_bytes(data.take(16), "little")) for _ in range(data.varint())
    ]
    return Run(shard, number, version, table, handler, key, now, eager != 2, value, caught, inputs)


Found = Union[None, bytes, list[tuple[bytes, bytes]], ProtocolError]


def read_found(data: Reader) -> Found:
    kind = data.u8()
    if kind == 0:
        return None
    if kind == 1:
        return data.bytes()
    if kind == 2:
        return [(data.bytes(), data.bytes()) for _ in range(data.varint())]
    if kind == 3:
        return ProtocolError(data.text())
    raise ProtocolError(f"{kind} is no known answer to a read")
