"""Counts events by key: the value of each grain is how many there were, its map how often each payload came."""

import sys

from gristmill_worker import Context, Input, Worker

worker = Worker("counter-py")


@worker.handler("counts")
def count(inputs: list[Input], context: Context) -> None:
    value = context.value()
    total = int.from_bytes(value, "big") if value else 0
    context.set_value((total + len(inputs)).to_bytes(8, "big"))
    for one in inputs:
        seen = context.get("seen", one.payload)
        context.put("seen", one.payload, (int.from_bytes(seen or b"", "big") + 1).to_bytes(8, "big"))
    context.count("hits", len(inputs))


@worker.handler("counts")
def read(inputs: list[Input], context: Context) -> list[bytes]:
    return [context.value() or bytes(8) for _ in inputs]


if __name__ == "__main__":
    worker.run(sys.argv[1])
