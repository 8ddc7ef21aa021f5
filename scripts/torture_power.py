#!/usr/bin/env python3
"""Power loss on a device with a volatile cache, again and again.

The data directory lies on ext4 on a loop device on nbdfuse on nbdkit, whose cache filter holds every write that nobody
flushed. Killing nbdkit under load loses those, as a power cut does to a disk with a volatile cache. What a client outside was
told stands in a ledger on another disk (`gristmill loadgen hold`); after each cut the server is started again on what is
left and must say all of it (`gristmill loadgen check`): nothing lost, doubled, invented, moved or out of order. In some cycles
power is cut again while the server recovers.

With --expect-loss the program is one that flushes nothing, and a run that notices no loss fails.
Run by `make torture-power`, as root. Status 0: it held; 1: it did not; 78: the machine lacks something.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60  # that a server may take to come up or to refuse
TOOLS = ["nbdkit", "nbdfuse", "losetup", "mkfs.ext4", "mount", "umount"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for image, ledger and logs; made anew")
    parser.add_argument("--cycles", type=int, default=20, help="power cuts")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="chooses when power is cut; drawn and printed if left out")
    parser.add_argument("--image-mib", type=int, default=4096, help="size of the device")
    parser.add_argument("--expect-loss", action="store_true", help="the program flushes nothing: fail unless that shows")
    return parser.parse_args()


def say(text):
    print(text, flush=True)


def lacks(text):
    print(f"torture-power: {text}", file=sys.stderr)
    sys.exit(78)


def wait_until(look, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{what} did not happen within {seconds} s")


class Device:
    """A file system on a disk with a volatile cache."""

    def __init__(self, work, mib):
        self.work, self.image = work, work / "disk.img"
        self.socket, self.fuse, self.mount = work / "nbd.sock", work / "nbd", work / "mnt"
        self.fuse.mkdir()
        self.mount.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(mib << 20)
        self.is_made = False
        self.nbdkit = self.nbdfuse = self.loop = None

    def power_on(self, filters=(), settings=()):
        """With further nbdkit filters before the cache, and their settings."""
        self.socket.unlink(missing_ok=True)
        log = open(self.work / "device.log", "a")
        # The cache is a file without a name in TMPDIR; it goes with the process.
        self.nbdkit = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, *filters, "--filter=cache", "file", self.image, "cache=writeback", *settings],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(self.work)})
        wait_until(self.socket.exists, 10, "nbdkit's socket")
        self.nbdfuse = subprocess.Popen(["nbdfuse", self.fuse / "disk", "--unix", self.socket],
                                        stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until((self.fuse / "disk").exists, 10, "nbdfuse's file")
        self.loop = subprocess.run(["losetup", "--direct-io=on", "--find", "--show", self.fuse / "disk"],
                                   check=True, capture_output=True, text=True).stdout.strip()
        if not self.is_made:
            subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", self.loop], check=True)
            self.is_made = True
        subprocess.run(["mount", "-t", "ext4", self.loop, self.mount], check=True)

    def power_off(self):
        """What was not flushed is gone from here on."""
        self.nbdkit.kill()
        self.nbdkit.wait()

    def clear(self):
        """Takes down what stands on a device that is gone. A file system that still has users is detached."""
        if self.loop:
            subprocess.run(["umount", "-l", self.mount], stderr=subprocess.DEVNULL)
            subprocess.run(["losetup", "-d", self.loop], stderr=subprocess.DEVNULL)
            subprocess.run(["umount", "-l", self.fuse], stderr=subprocess.DEVNULL)
            self.loop = None
        for process in (self.nbdfuse, self.nbdkit):
            if process and process.poll() is None:
                process.kill()
                process.wait()


class Server:
    """One life of the server."""

    def __init__(self, program, data, shards, log):
        self.log, self.data, self.began = log, data, time.monotonic()
        (data / "endpoints.json").unlink(missing_ok=True)
        self.process = subprocess.Popen([program, "serve", "--data", data, "--port-base", "0", "--shards", str(shards)],
                                        stdout=open(log, "w"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def wait_ready(self):
        """Seconds until it served; none if it ended before."""
        while time.monotonic() - self.began < START_SECONDS:
            if self.process.poll() is not None:
                return None
            try:
                self.address = f"127.0.0.1:{json.loads((self.data / 'endpoints.json').read_text())['port']}"
                return time.monotonic() - self.began
            except (OSError, ValueError):
                time.sleep(0.02)
        raise RuntimeError(f"the server neither serves nor ends; its log: {self.log}")

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def said(self):
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-5:])


class Campaign:
    def __init__(self, args):
        self.args, self.chance = args, random.Random(args.seed)
        self.ledger = args.work / "ledger"
        self.device = Device(args.work, args.image_mib)
        self.acked = 0

    def start(self):
        log = self.args.work / "server.log"
        return Server(self.args.gristmill, self.device.mount / "data", self.args.shards, log)

    def loadgen(self, what, server, *more):
        command = [self.args.gristmill, "loadgen", what, "--ledger", self.ledger, "--addr", server.address, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def cycle(self, number):
        """One power cut. What is wrong, or none."""
        self.device.power_on()
        server, ready, again = self.start(), None, ""
        try:
            if number > 1 and self.chance.random() < 0.3:
                # Cut during recovery: whatever it wrote so far may be gone, and the next start must do as well.
                time.sleep(self.chance.uniform(0, 0.4))
                self.device.power_off()
                server.kill()
                self.device.clear()
                self.device.power_on()
                server, again = self.start(), ", cut again while it recovered"
            ready = server.wait_ready()
            if ready is None:
                return f"the server does not start:\n{server.said()}"
            if number > 1:
                check = self.loadgen("check", server)
                found = check.communicate()[0].strip()
                if check.returncode != 0:
                    return f"status {check.returncode}: {found}"
            hold = self.loadgen("hold", server, "--secs", "30", "--output", "json")
            seconds = self.chance.uniform(0.3, 4.0)
            time.sleep(seconds)
            self.device.power_off()
            server.kill()
            out = hold.communicate()[0]
            if hold.returncode != 0:
                return f"the client outside ended with status {hold.returncode}: {out}"
            held = json.loads(out)
            self.acked += held["acked"]
            say(f"cycle {number}/{self.args.cycles}: ready in {ready:.2f} s{again}, power cut after {seconds:.2f} s, "
                f"{held['acked']:,} acked, {held['unknown']:,} unknown")
            return None
        finally:
            server.kill()
            if self.device.nbdkit.poll() is None:
                self.device.power_off()
            self.device.clear()

    def last_look(self):
        """The last cut is looked at as well. What is wrong, or none."""
        self.device.power_on()
        server = self.start()
        try:
            if server.wait_ready() is None:
                return f"the server does not start:\n{server.said()}"
            check = self.loadgen("check", server)
            found = check.communicate()[0].strip()
            say(found)
            if check.returncode != 0:
                return f"status {check.returncode}"
            server.process.terminate()
            if server.process.wait(20) != 0:
                return f"the server ended with status {server.process.returncode} at SIGTERM"
            return None
        finally:
            server.kill()
            self.device.power_off()
            self.device.clear()

    def run(self):
        try:
            for number in range(1, self.args.cycles + 1):
                if wrong := self.cycle(number):
                    return number, wrong
            return self.args.cycles, self.last_look()
        finally:
            if self.device.nbdkit and self.device.nbdkit.poll() is None:
                self.device.power_off()
            self.device.clear()


def check_machine():
    """Ends with status 78 where this cannot run."""
    if os.geteuid() != 0:
        lacks("root is needed, to mount file systems on loop devices")
    for tool in TOOLS:
        if not shutil.which(tool):
            lacks(f"{tool} is missing; `make torture-power` installs it from Debian as root")
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        lacks("/dev/fuse and /dev/loop-control are needed; a container must be given them")


def main():
    args = arguments()
    check_machine()
    args.seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    args.gristmill, args.work = args.gristmill.resolve(), args.work.resolve()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    say(f"torture-power: {args.cycles} cuts, seed {args.seed}, {'a program that flushes nothing' if args.expect_loss else args.gristmill}")
    campaign = Campaign(args)
    number, wrong = campaign.run()
    if args.expect_loss:
        say(f"noticed at cut {number}: {wrong}" if wrong else f"NOT noticed in {number} cuts: nothing was flushed, and nothing was lost")
        sys.exit(0 if wrong else 1)
    if wrong:
        say(f"FAILED behind cut {number}, seed {args.seed}: {wrong}\nkept: {args.work}")
        sys.exit(1)
    say(f"held: {args.cycles} cuts, {campaign.acked:,} acked, nothing lost")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
