#!/usr/bin/env python3
"""A full disk, again and again: under load with checkpoints, flushes and merges under way, and during recovery.

The data directory lies on a small file system, in turn on ext4 on a loop device and on tmpfs. A file beside it takes all room
but a drawn rest, and goes again. A client outside holds the ledger. What must hold:

- under load: nothing that was acknowledged is lost, and the same server serves again when there is room.
- during recovery, also with another number of shards: the server serves all there is, or refuses and says that there is no
  room. When there is, it starts and has all.

Run by `make torture-full`, as root. Status 0: it held; 1: it did not; 70: it could not be found out; 78: the machine lacks
something; 130: interrupted. No process, mount or loop device is left.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from torture_power import Campaign, check_machine, make_room, prepared, run_to_its_end, say, take_down, wait_until

RESTS = [0, 8 << 10, 100 << 10, 300 << 10, 1 << 20, 4 << 20]  # bytes that are left free


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for image, ledger and logs; made anew")
    parser.add_argument("--cycles", type=int, default=20, help="full disks")
    parser.add_argument("--shards", type=int, default=2, help="at first")
    parser.add_argument("--seed", type=int, default=None, help="chooses when, and how the server runs; drawn and printed if left out")
    parser.add_argument("--mib", type=int, default=768, help="size of the file systems")
    return parser.parse_args()


class Small:
    """A small file system, which stays mounted."""

    def __init__(self, work, children, kind, mib):
        self.work, self.children, self.mount = work, children, work / "mnt"
        self.mount.mkdir()
        image = work / "disk.img"
        image.touch()
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", self.mount], check=True)
            return
        os.truncate(image, mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.mount], check=True)

    def free(self):
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize

    def fill(self, rest):
        """Takes all room but about so much."""
        with open(self.mount / "ballast", "wb") as ballast:
            piece = self.free()
            while piece >= 4096:
                piece = min(piece, self.free() - rest)
                if piece <= 0:
                    break
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, piece)
                except OSError:
                    # The server has taken some, or the file system wants blocks for itself.
                    piece //= 2
        if self.free() > rest + (1 << 20):
            raise RuntimeError(f"{self.free()} bytes are free, {rest} were to be")

    def relieve(self):
        (self.mount / "ballast").unlink(missing_ok=True)

    def clear(self):
        """Ends every process."""
        self.children.end_all()


class Full(Campaign):
    def __init__(self, args, kind):
        self.kind = kind
        super().__init__(args, lambda children: Small(args.work, children, kind, args.mib))
        self.size = 64
        self.told = 0

    def status(self, server):
        return subprocess.run([self.args.gristmill, "status", "--addr", server.address], capture_output=True, text=True,
                              timeout=60).stdout

    def under_load(self, server, number):
        """What is wrong, or none."""
        hold = self.begin_hold(server, 5)
        rest, seconds = self.chance.choice(RESTS), self.chance.uniform(0.3, 2.0)
        time.sleep(self.chance.uniform(0, 1.0))
        self.device.fill(rest)
        time.sleep(seconds)
        is_told = "DISK FULL" in self.status(server)
        self.told += is_told
        self.device.relieve()
        out = hold.communicate()[0]
        if hold.returncode != 0:
            return f"the client outside ended with status {hold.returncode}: {out}"
        held = json.loads(out)
        self.acked += held["acked"]
        if held["gone"]:
            return f"no service again after {seconds:.2f} s of a full disk: {held}\n{server.said()}"
        wait_until(lambda: "DISK FULL" not in self.status(server), 30, "a status without a full disk")
        say(f"cycle {number}/{self.args.cycles}: {self.kind}, {rest >> 10} KiB left for {seconds:.2f} s under load"
            f"{', told' if is_told else ''}, {held['acked']:,} acked; {self.shards} shards")
        return self.check(server)[0]

    def at_start(self, number):
        """The disk is full while the server starts. What is wrong, or none."""
        rest = self.chance.choice(RESTS)
        self.device.fill(rest)
        old, words = self.shards, "served"
        if self.chance.random() < 0.4:
            self.shards = self.chance.randint(1, 4)
        server = self.start()
        try:
            if server.wait_ready() is None:
                said = server.said()
                if "no space left" not in said:
                    return f"with {rest} bytes free it ends with status {server.process.returncode}, and not for want of room:\n{said}"
                words = "refused"
            elif wrong := self.check(server)[0]:
                return f"with {rest} bytes free: {wrong}"
        finally:
            self.device.clear()
        self.device.relieve()
        say(f"cycle {number}/{self.args.cycles}: {self.kind}, {rest >> 10} KiB left at a start with {self.shards} shards after {old}: {words}")
        return None

    def cycle(self, number):
        if number > 1 and self.chance.random() < 0.5:
            return self.at_start(number)
        server = self.start()
        try:
            if server.wait_ready() is None:
                return self.refusal(server)
            if number > 1 and (wrong := self.check(server)[0]):
                return wrong
            if wrong := self.under_load(server, number):
                return wrong
            server.kill()
            return None
        finally:
            self.device.relieve()
            self.device.clear()

    def last_look(self):
        return self.look()

    def run(self):
        try:
            number, wrong = super().run()
            if wrong and self.kind == "tmpfs":
                # It goes with its mount.
                shutil.copytree(self.device.mount / "data", self.args.work / "kept", ignore=shutil.ignore_patterns("*.sock"))
            return number, wrong
        finally:
            self.device.clear()
            take_down(self.args.work)


def main():
    args = prepared(arguments())
    check_machine(["losetup", "mkfs.ext4", "mount", "umount"], ["/dev/loop-control"])
    say(f"torture-full: {args.cycles} full disks of each kind, seed {args.seed}, {args.gristmill}")
    for kind in ["ext4", "tmpfs"]:
        make_room(args.work)
        campaign = Full(args, kind)
        number, wrong = run_to_its_end(campaign)
        if wrong:
            say(f"FAILED in cycle {number} on {kind}, seed {args.seed}: {wrong}\nkept: {args.work}")
            sys.exit(1)
        say(f"held on {kind}: {args.cycles} full disks, {campaign.told} of them told by the status, {campaign.acked:,} acked, nothing lost")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
