"""The worker: connects, takes runs, calls handlers, gives verdicts."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Callable, Optional

from . import wire
from .context import Context, Deferred, Failed

Handler = Callable[[list[wire.Input], Context], Optional[list[Optional[bytes]]]]


class Gone(Exception):
    """The server has cut the connection."""


class Worker:
    """Serves one app. Handlers run on the thread that calls `run`, one after the other."""

    def __init__(self, app: str, credits: int = 64) -> None:
        self.app, self.credits = app, credits
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._lock = threading.Lock()
        self._runs: deque[wire.Run] = deque()
        self._rest = b""

    def handler(self, table: str, name: Optional[str] = None) -> Callable[[Handler], Handler]:
        """Decorates `(inputs, context) -> replies`: one reply for each input, or `None` for no replies at all."""

        def register(handler: Handler) -> Handler:
            self._handlers[table, name or handler.__name__] = handler
            return handler

        return register

    def run(self, data: str, patience: float = 30.0) -> None:
        """Serves the server of the data directory `data`, and connects again when that starts anew, for so many seconds."""
        until = time.monotonic() + patience
        while True:
            try:
                self._serve(Path(data))
                until = time.monotonic() + patience
            except (OSError, Gone, ValueError, KeyError) as error:
                if time.monotonic() > until:
                    raise Gone(f"no server serves {data}: {error}") from error
                time.sleep(0.05)

    def _serve(self, data: Path) -> None:
        endpoints = json.loads((data / "endpoints.json").read_text("utf-8"))
        token = (data / endpoints["worker_token"]).read_bytes().strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(data / endpoints["worker_socket"]))
            self._connection, self._rest = connection, b""
            self._runs.clear()
            self._send(wire.hello(token, self.app, self.credits, f"pid {os.getpid()}"))
            kind, body = self._receive()
            if kind != wire.WELCOME or body.u8() != wire.VERSION:
                raise Gone("the server speaks another version")
            self._lease, beat_millis, _credits = body.u64(), body.varint(), body.varint()
            stop = threading.Event()
            beats = threading.Thread(target=self._beat, args=(stop, self._lease, beat_millis / 1000), daemon=True)
            beats.start()
            try:
                while True:
                    self._turn()
            finally:
                stop.set()

    def _turn(self) -> None:
        while not self._runs:
            self._take_in()
        ended: list[bytes] = []
        # What has come in together goes back together, unless it takes long.
        until = time.monotonic() + 0.005
        while self._runs and len(ended) < 64 and (not ended or time.monotonic() < until):
            ended.append(self._call(self._runs.popleft()))
        self._send(wire.verdicts(self._lease, ended))

    def _take_in(self) -> Optional[list[wire.Found]]:
        kind, body = self._receive()
        if kind == wire.RUNS:
            if body.u64() == self._lease:
                self._runs.extend(wire.read_run(body) for _ in range(body.varint()))
            return None
        if kind == wire.ROWS:
            body.u64(), body.u16(), body.u64()
            return [wire.read_found(body) for _ in range(body.varint())]
        raise Gone(body.text() if kind == wire.BYE else f"frame of kind {kind}")

    def _ask(self, run: wire.Run, wanted: list[bytes]) -> list[wire.Found]:
        self._send(wire.reads(self._lease, run.shard, run.number, wanted))
        while True:
            found = self._take_in()
            if found is not None:
                return found

    def _call(self, run: wire.Run) -> bytes:
        context = Context(run, lambda wanted: self._ask(run, wanted))
        handler = self._handlers.get((run.table, run.handler))
        effects: list[bytes] = []
        try:
            if handler is None:
                raise Failed(f"this worker has no handler {run.table}.{run.handler}", kind="not-there")
            replies = handler(run.inputs, context)
            result, effects = wire.done(list(replies or [])), context.effects
        except Deferred as deferred:
            result = wire.deferred([], deferred.wait_micros)
        except Failed as failed:
            result = wire.failed(0, failed.kind, str(failed), failed.retry_micros, failed.retry)
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001: whatever a handler raises is a failure of its input
            traceback.print_exc()
            result = wire.failed(0, "exception", f"{type(error).__name__}: {error}")
        return wire.run_key(run.shard, run.number) + result + wire.effects(effects)

    def _beat(self, stop: threading.Event, lease: int, seconds: float) -> None:
        while not stop.wait(seconds):
            try:
                self._send(wire.beat(lease))
            except Gone:
                return

    def _send(self, frame: bytes) -> None:
        try:
            with self._lock:
                self._connection.sendall(frame)
        except OSError as error:
            raise Gone(f"the server cannot be told anything: {error}") from error

    def _receive(self) -> tuple[int, wire.Reader]:
        head = self._exactly(4)
        body = self._exactly(struct.unpack("<I", head)[0])
        return body[0], wire.Reader(body[1:])

    def _exactly(self, count: int) -> bytes:
        parts, missing = [self._rest], count - len(self._rest)
        while missing > 0:
            try:
                part = self._connection.recv(max(missing, 65536))
            except OSError as error:
                raise Gone(f"the server cannot be heard: {error}") from error
            if not part:
                raise Gone("the server has closed the connection")
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        self._rest = data[count:]
        return data[:count]
