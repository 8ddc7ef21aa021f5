#!/usr/bin/env python3
"""SIGKILL, again and again: during recovery, checkpoints, flushes into the store, merges, backups and moves of slots.

As torture_power.py without a disk that forgets: the page cache stays, so what a killed server wrote and did not flush is
there, and the next start must make it durable before it shows it. A client outside holds the ledger. After each kill
`gristmill data verify` must find nothing damaged and nothing lost, for a kill damages nothing. Some kills fall into a backup,
of the server or of who makes it; later ones into the same folder must end well, and the newest is restored and served at the end. Others fall into moves of
slots (`gristmill data rebalance`).

Run by `make torture-kill`; needs no root. Status 0: it held; 1: it did not; 70: it could not be found out; 130: interrupted.
"""
import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from torture_power import Campaign, Children, Server, make_room, prepared, run_to_its_end, say


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
        self.backups = args.work / "backups"
        # Backups that ended well, and those that a kill fell into.
        self.kept, self.broken = 0, 0

    def data(self, *words):
        """`gristmill data` with these words, to its end."""
        command = [self.args.gristmill, "data", *words, "--output", "json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def verify(self, folder=None):
        """What is wrong with the files, or none."""
        found = self.data("verify", folder or self.device.mount / "data")
        return None if found.returncode == 0 else f"data verify, status {found.returncode}: {found.stdout}{found.stderr}"

    def kill_backup(self, server):
        """Begins a backup and kills the server or the backup in the middle of it. What is wrong, or none."""
        command = [self.args.gristmill, "data", "backup", self.device.mount / "data", self.backups, "--output", "json"]
        backup = self.children.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(self.chance.uniform(0, 0.3))
        (server if self.chance.random() < 0.7 else backup).kill()
        said = backup.communicate(timeout=60)[0]
        if backup.returncode == 0:
            self.kept += 1
        else:
            self.broken += 1
        return f"the backup ended with status {backup.returncode}: {said}" if backup.returncode in (1, 70) else None

    def back_up(self):
        """A backup of the files at rest, over whatever broken ones have left. What is wrong, or none."""
        made = self.data("backup", self.device.mount / "data", self.backups)
        if made.returncode != 0:
            return f"data backup, status {made.returncode}: {made.stdout}{made.stderr}"
        self.kept += 1
        return self.verify(self.backups)

    def restore(self):
        """Restores the newest backup and serves it. What is wrong, or none."""
        folder = self.args.work / "restored"
        made = self.data("restore", self.backups, folder)
        if made.returncode != 0:
            return f"data restore, status {made.returncode}: {made.stdout}{made.stderr}"
        if wrong := self.verify(folder):
            return wrong
        log = self.args.work / "restored.log"
        server = Server(self.children, self.args.gristmill, folder, self.shards, log, self.more)
        try:
            return self.refusal(server) if server.wait_ready() is None else self.check(server)[0]
        finally:
            server.kill()

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
            kind, moves = self.chance.random(), None
            if kind < 0.5:
                moves = self.begin_moves()
            seconds = self.chance.uniform(0.1, 3.0)
            time.sleep(seconds)
            into = ""
            if kind > 0.7:
                into = ", in a backup"
                if wrong := self.kill_backup(server):
                    return wrong
            server.kill()
            held = self.end_hold(hold)
            if moves:
                moved, wrong = self.end_moves(moves)
                if wrong:
                    return wrong
                into = f", {moved} slots moved"
            say(f"cycle {number}/{self.args.cycles}: ready in {ready:.2f} s, killed after {seconds:.2f} s{into}, {held['acked']:,} acked, "
                f"{held['unknown']:,} unknown; {self.shards} shards, {files} files of the store up to job {job} before")
            return None
        finally:
            self.device.clear()

    def last_look(self):
        # What is looked at was stopped, so the backup has all that was acked.
        return self.look() or self.back_up() or self.restore()


def main():
    args = prepared(arguments())
    make_room(args.work)
    say(f"torture-kill: {args.cycles} kills, seed {args.seed}, {args.gristmill}")
    campaign = Kills(args)
    number, wrong = run_to_its_end(campaign)
    wrong = wrong or campaign.missed()
    if wrong:
        say(f"FAILED behind kill {number}, seed {args.seed}: {wrong}\nkept: {args.work}")
        sys.exit(1)
    say(f"held: {args.cycles} kills under load, {campaign.recoveries} of recoveries, {campaign.broken} of backups, "
        f"{campaign.acked:,} acked, nothing lost; {campaign.moves_in_words()}")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
