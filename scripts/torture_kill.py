#!/usr/bin/env python3
"""SIGKILL, again and again: during recovery, checkpoints, flushes into the store and merges.

As torture_power.py without a disk that forgets: the page cache stays, so what a killed server wrote and did not flush is
there, and the next start must make it durable before it shows it. A client outside holds the ledger. After each kill
`gristmill data verify` must find nothing damaged and nothing lost, for a kill damages nothing.

Run by `make torture-kill`; needs no root. Status 0: it held; 1: it did not; 70: it could not be found out; 130: interrupted.
"""
import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from torture_power import Campaign, Children, make_room, run_to_its_end, say, wait_until


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, ledger and logs; made anew")
    parser.add_argument("--cycles", type=int, default=20, help="kills under load; as many again fall into recoveries")
    parser.add_argument("--shards", type=int, default=2, help="at first")
    parser.add_argument("--seed", type=int, default=None, help="chooses when, and how the server runs; drawn and printed if left out")
    return parser.parse_args()


class Plain:
    """A folder in the place of a device."""

    def __init__(self, work, children):
        self.children, self.mount = children, work / "mnt"
        self.mount.mkdir()
        # What says that the folder is one of ours.
        (work / "disk.img").touch()

    def clear(self):
        self.children.end_all()


class Kills(Campaign):
    def __init__(self, args):
        super().__init__(args, lambda children: Plain(args.work, children))
        self.recoveries = 0

    def verify(self):
        """What is wrong with the files, or none."""
        found = subprocess.run([self.args.gristmill, "data", "verify", self.device.mount / "data", "--output", "json"],
                               capture_output=True, text=True, timeout=300)
        return None if found.returncode == 0 else f"data verify, status {found.returncode}: {found.stdout}{found.stderr}"

    def kill_recoveries(self):
        """Kills the server while it comes up, a few times. What is wrong, or none."""
        for _ in range(self.chance.choice([0, 0, 1, 2, 3])):
            server = self.start()
            time.sleep(self.chance.uniform(0, 0.4))
            server.kill()
            self.recoveries += 1
            if wrong := self.verify():
                return wrong
        return None

    def cycle(self, number):
        if number > 1:
            self.draw()
            if wrong := self.verify() or self.kill_recoveries():
                return wrong
        server = self.start()
        try:
            ready = server.wait_ready()
            if ready is None:
                return self.refusal(server)
            if number > 1 and (wrong := self.check(server)[0]):
                return wrong
            before, (files, job) = self.written(), self.stored()
            hold = self.loadgen("hold", server, "--secs", "30", "--size", str(self.size), "--output", "json")
            wait_until(lambda: self.written() > before + 1024 or hold.poll() is not None, 30, "the first operation")
            seconds = self.chance.uniform(0.1, 3.0)
            time.sleep(seconds)
            server.kill()
            out = hold.communicate()[0]
            if hold.returncode != 0:
                raise RuntimeError(f"the client outside ended with status {hold.returncode}: {out}")
            held = json.loads(out)
            self.acked += held["acked"]
            say(f"cycle {number}/{self.args.cycles}: ready in {ready:.2f} s, killed after {seconds:.2f} s, {held['acked']:,} acked, "
                f"{held['unknown']:,} unknown; {self.shards} shards, {files} files of the store up to job {job} before")
            return None
        finally:
            self.device.clear()

    def last_look(self):
        server = self.start()
        try:
            if server.wait_ready() is None:
                return self.refusal(server)
            wrong, found = self.check(server)
            say(found)
            return wrong
        finally:
            self.device.clear()


def main():
    args = arguments()
    args.seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    args.gristmill, args.work = args.gristmill.resolve(), args.work.resolve()
    make_room(args.work)
    say(f"torture-kill: {args.cycles} kills, seed {args.seed}, {args.gristmill}")
    campaign = Kills(args)
    number, wrong = run_to_its_end(campaign)
    if wrong:
        say(f"FAILED behind kill {number}, seed {args.seed}: {wrong}\nkept: {args.work}")
        sys.exit(1)
    say(f"held: {args.cycles} kills under load, {campaign.recoveries} of recoveries, {campaign.acked:,} acked, nothing lost")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
