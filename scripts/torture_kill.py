#!/usr/bin/env python3
"""SIGKILL, again and again: during recovery, checkpoints, flushes into the store and merges.

As torture_power.py without a disk that forgets: the page cache stays, so what a killed server wrote and did not flush is
there, and the next start must make it durable before it shows it. A client outside holds the ledger. After each kill
`gristmill data verify` must find nothing damaged and nothing lost, for a kill damages nothing.

Run by `make torture-kill`; needs no root. Status 0: it held; 1: it did not; 70: it could not be found out; 130: interrupted.
"""
import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from torture_power import Campaign, Children, make_room, prepared, run_to_its_end, say


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
            files, job = self.stored()
            hold = self.begin_hold(server, 30)
            seconds = self.chance.uniform(0.1, 3.0)
            time.sleep(seconds)
            server.kill()
            held = self.end_hold(hold)
            say(f"cycle {number}/{self.args.cycles}: ready in {ready:.2f} s, killed after {seconds:.2f} s, {held['acked']:,} acked, "
                f"{held['unknown']:,} unknown; {self.shards} shards, {files} files of the store up to job {job} before")
            return None
        finally:
            self.device.clear()

    def last_look(self):
        return self.look()


def main():
    args = prepared(arguments())
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
