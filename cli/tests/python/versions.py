"""Notes in one grain of which versions of the app it hears."""

import sys

from gristmill_worker import Context, Control, Input, Worker

worker = Worker("told")


@worker.handler("notes")
def hear(inputs: list[Input], context: Context) -> None:
    noted = context.value() or b""
    for one in inputs:
        assert isinstance(one.cause, Control) and one.payload == b""
        back = "<" if one.cause.rolled_back else ""
        noted += f"{one.cause.from_version}-{one.cause.version}{back} ".encode()
    context.set_value(noted)


if __name__ == "__main__":
    worker.run(sys.argv[1])
