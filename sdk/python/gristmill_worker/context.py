"""A handler's hold on its grain. Reads see the run's own writes; nothing is done before the whole run commits."""

from __future__ import annotations

import struct
from typing import Callable, Mapping, Optional

from . import wire
from .wire import blob, option, u64, varint

Ask = Callable[[list[bytes]], list[wire.Found]]
LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3}


class Failed(Exception):
    """The input could not be handled. `kind` is a name of lower-case letters, digits and '-'."""

    def __init__(
        self, message: str, kind: str = "failed", retry: bool = True, retry_micros: Optional[int] = None
    ) -> None:
        super().__init__(message)
        self.kind, self.retry, self.retry_micros = kind, retry, retry_micros


class Deferred(Exception):
    """Not now: after this time, or when more has come."""

    def __init__(self, wait_micros: Optional[int] = None) -> None:
        super().__init__("deferred")
        self.wait_micros = wait_micros


def _labels(labels: Mapping[str, str]) -> bytes:
    return varint(len(labels)) + b"".join(blob(name) + blob(value) for name, value in labels.items())


class Context:
    """Lives for one run."""

    def __init__(self, run: wire.Run, ask: Ask) -> None:
        self._run, self._ask = run, ask
        self._has_value, self._value = run.has_value, run.value
        self._deleted = False
        self._entries: dict[tuple[str, bytes], Optional[bytes]] = {}
        self._cleared: list[tuple[str, bytes, Optional[bytes]]] = []
        self.effects: list[bytes] = []

    @property
    def key(self) -> bytes:
        return self._run.key

    @property
    def now_micros(self) -> int:
        return self._run.now_micros

    @property
    def caught(self) -> Optional[tuple[str, str, int]]:
        return self._run.caught

    def value(self) -> Optional[bytes]:
        if not self._has_value:
            found = self._one(b"\0")
            assert found is None or isinstance(found, bytes)
            self._has_value, self._value = True, found
        return self._value

    def set_value(self, value: Optional[bytes]) -> None:
        self._has_value, self._value = True, value
        self.effects.append(b"\0" + option(value))

    def delete_grain(self) -> None:
        self._has_value, self._value, self._deleted = True, None, True
        self._entries.clear()
        self.effects.append(b"\5")

    def get(self, map_name: str, key: bytes) -> Optional[bytes]:
        if (map_name, key) in self._entries:
            return self._entries[map_name, key]
        if self._deleted or any(_within(key, cut) for cut in self._cleared if cut[0] == map_name):
            return None
        found = self._one(b"\1" + blob(map_name) + blob(key))
        assert found is None or isinstance(found, bytes)
        return found

    def put(self, map_name: str, key: bytes, value: bytes) -> None:
        self._entries[map_name, key] = value
        self.effects.append(b"\2" + blob(map_name) + blob(key) + option(value))

    def delete(self, map_name: str, key: bytes) -> None:
        self._entries[map_name, key] = None
        self.effects.append(b"\2" + blob(map_name) + blob(key) + option(None))

    def delete_range(self, map_name: str, first: bytes = b"", before: Optional[bytes] = None) -> None:
        cut = (map_name, first, before)
        self._cleared.append(cut)
        for name, key in [it for it in self._entries if it[0] == map_name and _within(it[1], cut)]:
            del self._entries[name, key]
        self.effects.append(b"\4" + blob(map_name) + blob(first) + option(before))

    def range(
        self, map_name: str, first: bytes = b"", before: Optional[bytes] = None, limit: int = 1000, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Entries in order, at most `limit`, the run's own writes included."""
        span = (map_name, first, before)
        own = {key: value for (name, key), value in self._entries.items() if name == map_name and _within(key, span)}
        rows: dict[bytes, bytes] = {}
        start, end = first, before
        while not self._deleted:
            more = limit + len(own) + 1
            read = b"\2" + blob(map_name) + blob(start) + option(end) + varint(more) + bytes([reverse])
            found = self._one(read)
            assert isinstance(found, list)
            cuts = [cut for cut in self._cleared if cut[0] == map_name]
            rows.update((key, value) for key, value in found if not any(_within(key, cut) for cut in cuts))
            if len(found) < more or len(rows) > limit + len(own):
                break
            start, end = (start, found[-1][0]) if reverse else (found[-1][0] + b"\0", end)
        for key, value in own.items():
            rows.pop(key, None)
            if value is not None:
                rows[key] = value
        return sorted(rows.items(), reverse=reverse)[:limit]

    def invoke(self, table: str, key: bytes, handler: str, payload: bytes = b"") -> None:
        self.effects.append(b"\6\0" + blob(table) + blob(key) + b"\5" + blob(handler) + blob(payload) + b"\0")

    def invoke_then(
        self, table: str, key: bytes, handler: str, payload: bytes, callback: str, cookie: bytes = b"", only_on_error: bool = False
    ) -> None:
        """The same; `callback` of this table is called with the outcome."""
        tail = b"\1" + blob(callback) + blob(cookie) + bytes([only_on_error])
        self.effects.append(b"\6\0" + blob(table) + blob(key) + b"\5" + blob(handler) + blob(payload) + tail)

    def append(self, topic: str, key: bytes, value: bytes) -> None:
        self.effects.append(b"\6\1" + blob(topic) + blob(key) + b"\0" + blob(value) + b"\0")

    def set_timer(self, name: str, due_micros: int, handler: str, payload: bytes = b"") -> None:
        self.effects.append(b"\7" + blob(name) + u64(due_micros) + blob(handler) + blob(payload))

    def cancel_timer(self, name: str) -> None:
        self.effects.append(b"\x08" + blob(name))

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        self.effects.append(b"\x09" + blob(name) + _labels(labels) + varint(by))

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.effects.append(b"\x0a" + blob(name) + _labels(labels) + struct.pack("<d", value))

    def gauge_add(self, name: str, by: int, **labels: str) -> None:
        self.effects.append(b"\x0b" + blob(name) + _labels(labels) + struct.pack("<q", by))

    def log(self, level: str, line: str) -> None:
        self.effects.append(b"\x0c" + bytes([LEVELS[level]]) + blob(line))

    def _one(self, read: bytes) -> wire.Found:
        found = self._ask([read])[0]
        if isinstance(found, wire.ProtocolError):
            raise Failed(str(found), retry=False)
        return found


def _within(key: bytes, span: tuple[str, bytes, Optional[bytes]]) -> bool:
    return span[1] <= key and (span[2] is None or key < span[2])
