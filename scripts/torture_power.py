#!/usr/bin/env python3
"""Power loss on a device with a volatile cache, again and again.

The data directory lies on ext4 on a loop device on nbdfuse on nbdkit, whose cache filter holds every write that nobody
flushed. Killing nbdkit under load loses those, as a power cut does to a disk with a volatile cache. What a client outside was
told stands in a ledger on another disk (`gristmill loadgen hold`); after each cut the server is started again on what is
left and must say all of it (`gristmill loadgen check`): nothing lost, doubled, invented, moved or out of order. In some cycles
power is cut again while the server recovers. In most of them logs are so short that checkpoints, flushes into the store and
merges are always under way; in some the server has another number of shards than before; and in half of them slots go from shard
to shard meanwhile (`gristmill data rebalance`).

With --expect-loss the program is one that flushes nothing, and a run that notices no loss fails.
Run by `make torture-power`, as root. Status 0: it held; 1: it did not; 70: it could not be found out; 78: the machine lacks
something; 130: interrupted. However it ends, unless by SIGKILL, no process, mount or loop device of it is left, and the next
run takes down mounts and loop devices that a killed one left.
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
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Logs so short that a checkpoint of every slot is due about once a second.
SHORT_LOGS = ["--segment-bytes", str(256 << 10), "--checkpoint-bytes", str(1 << 20)]
SHARDS_MAX = 4
SLOTS = 256
PAUSE_MILLIS_MAX = 1_000  # that requests of a slot may wait while it moves
MOVES_ASKED_MIN = 3  # so often slots are to move until it is wrong that none has
UNREACHABLE = 69  # status of a command whose server is gone
VALUES = [64, 400, 1500]  # bytes; from 1,024 on they lie in files of their own
TOOLS = ["nbdkit", "nbdfuse", "losetup", "mkfs.ext4", "mount", "umount"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for image, ledger and logs; made anew")
    parser.add_argument("--cycles", type=int, default=20, help="power cuts")
    parser.add_argument("--shards", type=int, default=2, help="at first")
    parser.add_argument("--seed", type=int, default=None, help="chooses when power is cut, and how the server runs; drawn and printed if left out")
    parser.add_argument("--image-mib", type=int, default=4096, help="size of the device")
    parser.add_argument("--pause-ms", type=int, default=PAUSE_MILLIS_MAX,
                        help="that requests of a slot may wait while it moves; more beside other work, which says nothing of pauses")
    parser.add_argument("--expect-loss", action="store_true", help="the program flushes nothing: fail unless that shows")
    return parser.parse_args()


def say(text):
    print(text, flush=True)


def lacks(text):
    print(f"torture: {text}", file=sys.stderr)
    sys.exit(78)


def wait_until(look, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{what} did not happen within {seconds} s")


class Interruption:
    """Somebody wants an end."""

    held = came = False

    @classmethod
    def take(cls, _number, _frame):
        cls.came = True
        if not cls.held:
            raise KeyboardInterrupt


class Children:
    """The processes that were started. A key pressed at the terminal does not reach them: they end in their order."""

    def __init__(self):
        self.all = []

    def start(self, command, **more):
        # An interruption waits until the process is one of those that are ended.
        Interruption.held = True
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **more)
        self.all.append(process)
        Interruption.held = False
        if Interruption.came:
            raise KeyboardInterrupt
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()
        self.all.remove(process)

    def end_all(self):
        for process in list(self.all):
            self.end(process)


class Device:
    """A file system on a disk with a volatile cache."""

    def __init__(self, work, children, mib):
        self.work, self.children, self.image = work, children, work / "disk.img"
        self.socket, self.fuse, self.mount = work / "nbd.sock", work / "nbd", work / "mnt"
        self.fuse.mkdir()
        self.mount.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(mib << 20)
        self.is_made = False
        self.nbdkit = None

    def power_on(self, filters=(), settings=()):
        """With further nbdkit filters before the cache, and their settings."""
        self.socket.unlink(missing_ok=True)
        with open(self.work / "device.log", "a") as log:
            # The cache is a file without a name in TMPDIR; it goes with the process.
            self.nbdkit = self.children.start(
                ["nbdkit", "-f", "-U", self.socket, *filters, "--filter=cache", "file", self.image, "cache=writeback", *settings],
                stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(self.work)})
            wait_until(self.socket.exists, 10, "nbdkit's socket")
            self.children.start(["nbdfuse", self.fuse / "disk", "--unix", self.socket], stdout=log, stderr=log)
        wait_until((self.fuse / "disk").exists, 10, "nbdfuse's file")
        loop = subprocess.run(["losetup", "--direct-io=on", "--find", "--show", self.fuse / "disk"],
                              check=True, capture_output=True, text=True).stdout.strip()
        if not self.is_made:
            subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", loop], check=True)
            self.is_made = True
        subprocess.run(["mount", "-t", "ext4", loop, self.mount], check=True)

    def power_off(self):
        """What was not flushed is gone from here on."""
        self.nbdkit.kill()
        self.nbdkit.wait()

    def clear(self):
        """Ends every process, then takes down what stands on the device."""
        if self.nbdkit:
            self.power_off()
        for process in list(self.children.all):
            # The device's own come last: a server whose disk is gone ends, one whose disk stands still does not.
            if "nbdfuse" not in process.args and process is not self.nbdkit:
                self.children.end(process)
        take_down(self.work)
        self.children.end_all()
        self.nbdkit = None


def take_down(work):
    """Detaches whatever is mounted below the folder, and the loop devices on files in it."""
    below = f"{work}/"
    fields = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    # The kernel writes blanks in paths as numbers.
    points = [part[1].encode().decode("unicode_escape") for part in fields]
    mounts = [point for point in points if point.startswith(below)]
    listed = subprocess.run(["losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"],
                            capture_output=True, text=True).stdout.splitlines()
    loops = [line.split()[0] for line in listed if below in line]
    for mount in mounts:
        if not mount.startswith(f"{work}/nbd"):
            subprocess.run(["umount", "-l", mount], stderr=subprocess.DEVNULL)
    for loop in loops:
        subprocess.run(["losetup", "-d", loop], stderr=subprocess.DEVNULL)
    for mount in mounts:
        if mount.startswith(f"{work}/nbd"):
            subprocess.run(["umount", "-l", mount], stderr=subprocess.DEVNULL)


class Server:
    """One life of the server."""

    def __init__(self, children, program, data, shards, log, more=()):
        self.children, self.log, self.data, self.began = children, log, data, time.monotonic()
        (data / "endpoints.json").unlink(missing_ok=True)
        command = [program, "serve", "--data", data, "--port-base", "0", "--shards", str(shards), *more]
        with open(log, "w") as out:
            self.process = children.start(command, stdout=out, stderr=subprocess.STDOUT)

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
        self.process.kill()
        self.process.wait()

    def said(self):
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-5:])


class Campaign:
    def __init__(self, args, device=None):
        """With another device than that of power cuts, if one is given: made of the children."""
        self.args, self.chance = args, random.Random(args.seed)
        self.ledger = args.work / "ledger"
        self.children = Children()
        self.device = device(self.children) if device else Device(args.work, self.children, args.image_mib)
        self.acked = 0
        # Slots that moved, kills that fell into a move or between two, and the longest pause of a slot.
        self.asked_moves, self.moved, self.into_moves, self.paused_micros = 0, 0, 0, 0
        self.goal = 0
        self.shards, self.more = args.shards, SHORT_LOGS
        self.size = self.chance.choice(VALUES)

    def start(self):
        log = self.args.work / "server.log"
        return Server(self.children, self.args.gristmill, self.device.mount / "data", self.shards, log, self.more)

    def draw(self):
        """How the server runs next."""
        self.more = SHORT_LOGS if self.chance.random() < 0.8 else []
        if self.chance.random() < 0.2:
            self.shards = self.chance.randint(1, SHARDS_MAX)

    def stored(self):
        """How many files the store has, and the number of the last job that wrote one: whether there is anything to lose."""
        names = [path.name for path in (self.device.mount / "data" / "store").glob("*/*.*")]
        return len(names), max((int(name.split("-")[0]) for name in names), default=0)

    def loadgen(self, what, server, *more):
        command = [self.args.gristmill, "loadgen", what, "--ledger", self.ledger, "--addr", server.address, *more]
        return self.children.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def check(self, server):
        """What the ledger misses at the server, or none, and what was found."""
        check = self.loadgen("check", server)
        found = check.communicate()[0].strip()
        if check.returncode not in (0, 1):
            raise RuntimeError(f"the check ended with status {check.returncode}: {found}")
        return found if check.returncode else None, found

    def refusal(self, server):
        """Why it does not start, if it is because of what it read."""
        if server.process.returncode != 1:
            raise RuntimeError(f"the server ended with status {server.process.returncode}:\n{server.said()}")
        return f"the server does not start:\n{server.said()}"

    def written(self):
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    def begin_hold(self, server, seconds):
        """A client outside that holds what is acked, once it sends."""
        before = self.written()
        hold = self.loadgen("hold", server, "--secs", str(seconds), "--size", str(self.size), "--output", "json")
        # More than the first line: the client is connected and sends.
        wait_until(lambda: self.written() > before + 1024 or hold.poll() is not None, 30, "the first operation")
        return hold

    def end_hold(self, hold):
        """What the client outside says when it has ended."""
        out = hold.communicate()[0]
        if hold.returncode != 0:
            raise RuntimeError(f"the client outside ended with status {hold.returncode}: {out}")
        held = json.loads(out)
        self.acked += held["acked"]
        return held

    def begin_moves(self):
        """Sends all slots to one shard, to another than the last time, one after the other; none where there is one shard."""
        if self.shards < 2:
            return None
        self.goal = (self.goal + 1) % self.shards
        self.asked_moves += 1
        command = [self.args.gristmill, "data", "rebalance", self.device.mount / "data", "--slot", f"0-{SLOTS - 1}",
                   "--to", str(self.goal), "--output", "json"]
        return self.children.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end_moves(self, moves):
        """Once the server is dead: how many slots have moved, and what is wrong, or none."""
        try:
            said = moves.communicate(timeout=5)[0]
        except subprocess.TimeoutExpired:
            moves.kill()
            said = moves.communicate()[0]
        lines = said.splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        moved = [move for move in told if move.get("moved")]
        self.moved += len(moved)
        # Cut off on the way, not refused at once.
        self.into_moves += moves.returncode != 0 and (bool(told) or moves.returncode == UNREACHABLE)
        self.paused_micros = max([self.paused_micros, *(move["paused_us"] for move in moved)])
        if self.paused_micros >= 1_000 * getattr(self.args, "pause_ms", PAUSE_MILLIS_MAX):
            return len(moved), f"requests of a slot waited for {self.paused_micros / 1e6:.2f} s"
        wrong = moves.returncode in (2, 70, 78)
        said = lines[-1] if lines else "it said nothing"
        return len(moved), f"data rebalance, status {moves.returncode}: {said}" if wrong else None

    def missed(self):
        """What all cycles together should have reached and have not, or none."""
        is_missed = self.asked_moves >= MOVES_ASKED_MIN and not self.moved
        return f"{self.asked_moves} times slots were to move, and none has" if is_missed else None

    def moves_in_words(self):
        return f"{self.moved:,} slots moved, {self.into_moves} times on the way, longest pause {self.paused_micros / 1e3:.1f} ms"

    def cycle(self, number):
        """One power cut. What is wrong, or none."""
        self.device.power_on()
        if number > 1:
            self.draw()
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
                return self.refusal(server)
            if number > 1 and (wrong := self.check(server)[0]):
                return wrong
            files, job = self.stored()
            hold = self.begin_hold(server, 30)
            moves = self.begin_moves() if self.chance.random() < 0.5 else None
            seconds = self.chance.uniform(0.3, 4.0)
            time.sleep(seconds)
            self.device.power_off()
            server.kill()
            held = self.end_hold(hold)
            moved, wrong = self.end_moves(moves) if moves else (0, None)
            if wrong:
                return wrong
            say(f"cycle {number}/{self.args.cycles}: ready in {ready:.2f} s{again}, power cut after {seconds:.2f} s, "
                f"{held['acked']:,} acked, {held['unknown']:,} unknown; {self.shards} shards, {'short' if self.more else 'long'} logs, {moved} slots moved, "
                f"{files} files of the store up to job {job} before")
            return None
        finally:
            self.device.clear()

    def last_look(self):
        """The last cut is looked at as well. What is wrong, or none."""
        self.device.power_on()
        return self.look()

    def look(self):
        """What is wrong with what is there, or with how the server stops; or none."""
        server = self.start()
        try:
            if server.wait_ready() is None:
                return self.refusal(server)
            wrong, found = self.check(server)
            say(found)
            if wrong:
                return "see above"
            server.process.terminate()
            if server.process.wait(20) != 0:
                return f"the server ended with status {server.process.returncode} at SIGTERM"
            return None
        finally:
            self.device.clear()

    def run(self):
        for number in range(1, self.args.cycles + 1):
            if wrong := self.cycle(number):
                return number, wrong
        return self.args.cycles, self.last_look()


def make_room(work):
    """Empties the folder, if it is one of an earlier run, and takes down what that has left."""
    if work.exists() and any(work.iterdir()) and not (work / "disk.img").exists():
        print(f"{work} is not empty and not of an earlier run: name another folder", file=sys.stderr)
        sys.exit(2)
    take_down(work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)


def run_to_its_end(campaign):
    """The cycle that it came to, and what is wrong, or none. Ends the program where that cannot be found out."""
    args = campaign.args
    for number in ENDING:
        signal.signal(number, Interruption.take)
    try:
        return campaign.run()
    except KeyboardInterrupt:
        say(f"interrupted; kept: {args.work}")
        sys.exit(130)
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        say(f"it could not be found out, seed {args.seed}: {error}\nkept: {args.work}")
        sys.exit(70)
    finally:
        # Cleaning up is not interrupted.
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        campaign.device.clear()


def check_machine(tools=TOOLS, devices=("/dev/fuse", "/dev/loop-control")):
    """Ends with status 78 where this cannot run."""
    if os.geteuid() != 0:
        lacks("root is needed, to mount file systems on loop devices")
    for tool in tools:
        if not shutil.which(tool):
            lacks(f"{tool} is missing; `make torture-power` installs it from Debian as root")
    for device in devices:
        if not Path(device).exists():
            lacks(f"{device} is needed; a container must be given it")


def prepared(args):
    """The arguments with a seed, and paths that hold wherever the program goes."""
    args.seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    args.gristmill, args.work = args.gristmill.resolve(), args.work.resolve()
    return args


def main():
    args = prepared(arguments())
    check_machine()
    make_room(args.work)
    say(f"torture-power: {args.cycles} cuts, seed {args.seed}, {'a program that flushes nothing' if args.expect_loss else args.gristmill}")
    campaign = Campaign(args)
    number, wrong = run_to_its_end(campaign)
    if args.expect_loss:
        say(f"noticed at cut {number}: {wrong}" if wrong else f"NOT noticed in {number} cuts: nothing was flushed, and nothing was lost")
        sys.exit(0 if wrong else 1)
    wrong = wrong or campaign.missed()
    if wrong:
        say(f"FAILED behind cut {number}, seed {args.seed}: {wrong}\nkept: {args.work}")
        sys.exit(1)
    say(f"held: {args.cycles} cuts, {campaign.acked:,} acked, nothing lost; {campaign.moves_in_words()}")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
