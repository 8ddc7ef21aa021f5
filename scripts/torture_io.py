#!/usr/bin/env python3
"""A disk that fails or is slow, again and again, under a server that keeps its word.

As in torture_power.py the data directory lies on ext4 on nbdkit, and a ledger on another disk has what a client was told.
Here nbdkit's error filter makes every read, write and flush fail with EIO from some moment on (an error that a disk reports,
unlike a power cut), or its delay filter makes each of them slow. What must hold:

- failed: nothing is acknowledged on the strength of a write or flush that failed. The server says so in its status, keeps
  answering, and a restart on the healthy disk has all that was acknowledged.
- slow: the server goes on, and all is there.

Run by `make torture-io`, as root. Status 0: it held; 1: it did not; 70: it could not be found out; 78: the machine lacks
something; 130: interrupted. No process, mount or loop device is left.
"""
import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from torture_power import SHORT_LOGS, Children, Device, Server, check_machine, make_room, prepared, run_to_its_end, say, wait_until


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for image, ledger and logs; made anew")
    parser.add_argument("--cycles", type=int, default=10, help="failed and slow disks, in turn")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="chooses when the disk fails; drawn and printed if left out")
    parser.add_argument("--image-mib", type=int, default=4096, help="size of the device")
    return parser.parse_args()


class Campaign:
    def __init__(self, args):
        self.args, self.chance = args, random.Random(args.seed)
        self.ledger, self.trigger = args.work / "ledger", args.work / "fail"
        self.children = Children()
        self.device = Device(args.work, self.children, args.image_mib)
        self.acked = 0
        # Checkpoints, flushes into the store and merges are under way when the disk fails, but in every fourth life.
        self.more = SHORT_LOGS

    def power_on(self, slow_ms=0):
        self.trigger.unlink(missing_ok=True)
        filters, settings = ["--filter=error"], ["error=EIO", "error-rate=100%", f"error-file={self.trigger}"]
        if slow_ms:
            filters.append("--filter=delay")
            settings += [f"wdelay={slow_ms}ms", f"rdelay={slow_ms}ms"]
        self.device.power_on(filters, settings)

    def start(self):
        log = self.args.work / "server.log"
        return Server(self.children, self.args.gristmill, self.device.mount / "data", self.args.shards, log, self.more)

    def run_program(self, *words):
        return subprocess.run([self.args.gristmill, *words], capture_output=True, text=True, timeout=120)

    def check(self, server):
        """What the ledger says against the server; none if all is there, or there is no ledger yet."""
        if not self.ledger.exists():
            return None
        checked = self.run_program("loadgen", "check", "--ledger", self.ledger, "--addr", server.address)
        return None if checked.returncode == 0 else f"status {checked.returncode}: {checked.stdout}{checked.stderr}"

    def hold(self, server, seconds):
        return self.children.start([self.args.gristmill, "loadgen", "hold", "--ledger", self.ledger, "--addr", server.address,
                                    "--secs", str(seconds), "--output", "json"], stdout=subprocess.PIPE, text=True)

    def written(self):
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    def acks(self, hold):
        out = hold.communicate(timeout=120)[0]
        if hold.returncode != 0:
            raise RuntimeError(f"the client outside ended with status {hold.returncode}: {out}")
        held = json.loads(out)
        self.acked += held["acked"]
        return held

    def failed(self, number):
        """The disk fails under load. What is wrong, or none."""
        self.power_on()
        server = self.start()
        try:
            if server.wait_ready() is None:
                return f"the server does not start:\n{server.said()}"
            if wrong := self.check(server):
                return wrong
            before = self.written()
            hold, seconds = self.hold(server, 60), self.chance.uniform(0.3, 3.0)
            # More than the first line: the client is connected and sends.
            wait_until(lambda: self.written() > before + 1024 or hold.poll() is not None, 30, "the first operation")
            time.sleep(seconds)
            self.trigger.touch()
            held = self.acks(hold)
            if not held["gone"]:
                return f"every write failed for the rest of a minute, and the client noticed nothing: {held}"
            status = self.run_program("status", "--addr", server.address)
            if "FAILED" not in status.stdout:
                return f"the status does not say that the log failed: {status.stdout}{status.stderr}"
            # A client that comes now may be refused at once; an operation that it is told is done would be a lie.
            late = self.hold(server, 2).communicate(timeout=120)[0]
            if late and json.loads(late)["acked"] > 0:
                return f"acknowledged after the log had failed: {late}"
            say(f"cycle {number}/{self.args.cycles}: failed after {seconds:.2f} s, {held['acked']:,} acked, "
                f"{held['unknown']:,} unknown, none acked since")
            return None
        finally:
            self.end(server)

    def slow(self, number):
        """The disk is slow. What is wrong, or none."""
        delay = self.chance.choice([1, 5, 20])
        self.power_on(delay)
        server = self.start()
        try:
            if server.wait_ready() is None:
                return f"the server does not start:\n{server.said()}"
            if wrong := self.check(server):
                return wrong
            held = self.acks(self.hold(server, 3))
            if held["gone"] or held["acked"] == 0:
                return f"with {delay} ms for each operation of the disk the client gave up: {held}"
            say(f"cycle {number}/{self.args.cycles}: {delay} ms for each operation, {held['acked']:,} acked")
            return None
        finally:
            self.end(server)

    def end(self, server):
        """The process ends hard; the disk is healthy again, and keeps what was flushed."""
        server.kill()
        self.device.clear()

    def last_look(self):
        self.power_on()
        server = self.start()
        try:
            if server.wait_ready() is None:
                return f"the server does not start:\n{server.said()}"
            if wrong := self.check(server):
                return wrong
            held = self.acks(self.hold(server, 1))
            return f"no full service at the end: {held}" if held["gone"] or held["acked"] == 0 else None
        finally:
            self.end(server)

    def run(self):
        for number in range(1, self.args.cycles + 1):
            self.more = SHORT_LOGS if self.chance.random() < 0.75 else []
            if wrong := (self.failed if number % 2 else self.slow)(number):
                return number, wrong
        return self.args.cycles, self.last_look()


def main():
    args = prepared(arguments())
    check_machine()
    make_room(args.work)
    say(f"torture-io: {args.cycles} cycles, seed {args.seed}, {args.gristmill}")
    campaign = Campaign(args)
    number, wrong = run_to_its_end(campaign)
    if wrong:
        say(f"FAILED in cycle {number}, seed {args.seed}: {wrong}\nkept: {args.work}")
        sys.exit(1)
    say(f"held: {args.cycles} cycles, {campaign.acked:,} acked, nothing lost")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
