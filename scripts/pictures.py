#!/usr/bin/env python3
"""Pictures of a running server for the docs: `gristmill top` in a terminal, and the dashboard's panels from real metrics.

Starts a server of its own on loopback with a data directory under --work, has the demo app load a bounded input while
loadgen puts, lets Prometheus scrape it, and evaluates every expression of deploy/grafana/gristmill.json as Grafana would.
An expression that Prometheus refuses, or a panel without a single sample, ends the run with status 1.
Run by `make pictures`, which installs what it needs.
"""
import argparse
import fcntl
import json
import math
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 132, 44
STEP = 2  # seconds between two scrapes
# Of the lines that are loaded.
WORDS = "grain topic lane slot shard stream record session timer outbox commit ledger river stone mill wheel".split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gristmill", required=True, help="program of the server")
    parser.add_argument("--loadgen", required=True, help="program of the load generator")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--secs", type=int, default=60, help="seconds under load")
    return parser.parse_args()


def ask(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def wait_for(what, seconds, look):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.2)
    sys.exit(f"pictures: {what} did not come within {seconds} s")


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def write_lines(path, count):
    with open(path, "w") as out:
        for n in range(count):
            words = " ".join(WORDS[(n * 7 + k * 5) % len(WORDS)] for k in range(8))
            out.write(json.dumps({"doc": f"doc {n % 5000}", "text": words}) + "\n")


class Terminal:
    """A program on a terminal of its own, and what it shows."""

    def __init__(self, command):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execvp(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.stream.feed(os.read(self.fd, 65536))
                except OSError:
                    return

    def close(self):
        try:
            os.kill(self.pid, signal.SIGTERM)
        finally:
            os.waitpid(self.pid, 0)
            os.close(self.fd)

    def picture(self, path):
        """Draws the cells with a monospaced font."""
        fonts = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono{}.ttf"
        plain, bold = (ImageFont.truetype(fonts.format(kind), 15) for kind in ("", "-Bold"))
        width, height = math.ceil(plain.getlength("M")), 19
        used = 1 + max((y for y in range(ROWS) for x in range(COLUMNS) if self.screen.buffer[y][x].data.strip()), default=0)
        image = Image.new("RGB", (COLUMNS * width + 20, used * height + 20), "#16181d")
        draw = ImageDraw.Draw(image)
        for y in range(used):
            for x in range(COLUMNS):
                cell = self.screen.buffer[y][x]
                fore, back = colour(cell.fg, "#d7dae0"), colour(cell.bg, "#16181d")
                if cell.reverse:
                    fore, back = back, fore
                at = (10 + x * width, 10 + y * height)
                if back != "#16181d":
                    draw.rectangle([at, (at[0] + width - 1, at[1] + height - 1)], fill=back)
                if cell.data.strip():
                    draw.text(at, cell.data, fill=fore, font=bold if cell.bold else plain)
        image.save(path, optimize=True)


NAMED = {"black": "#16181d", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "yellow": "#e5c07b", "blue": "#61afef",
         "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d7dae0"}


def colour(name, default):
    if name == "default":
        return default
    if re.fullmatch(r"[0-9a-fA-F]{6}", name):
        return "#" + name
    return NAMED.get(name.removeprefix("bright"), default)


def value_text(value, unit):
    if unit == "bytes" or unit == "Bps":
        for name in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or name == "GiB":
                return f"{value:.3g} {name}" + ("/s" if unit == "Bps" else "")
            value /= 1024
    if unit == "s":
        return f"{value * 1e6:.0f} µs" if value < 1e-3 else f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    for name in ("", " k", " M"):
        if abs(value) < 1000 or name == " M":
            return f"{value:.3g}{name}" + {"ops": "/s", "reqps": "/s"}.get(unit, "")
        value /= 1000


def series(prometheus, panel, start, end):
    """Every series of a panel: legend and points. The variables are what Grafana would put in."""
    found = []
    for target in panel["targets"]:
        expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", f"{STEP * 4}s")
        query = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": STEP})
        answer = ask(f"{prometheus}/api/v1/query_range?{query}")
        if answer["status"] != "success":
            sys.exit(f"pictures: panel {panel['title']}: {answer}")
        for one in answer["data"]["result"]:
            legend = re.sub(r"\{\{(\w+)\}\}", lambda m: one["metric"].get(m[1], ""), target.get("legendFormat", ""))
            points = [(float(at) - start, float(value)) for at, value in one["values"]]
            found.append((legend, [point for point in points if math.isfinite(point[1])]))
    return found


def dashboard(prometheus, panels, start, end, path):
    # Grafana moves panels up until they touch; so does this.
    heights = {panel["gridPos"]["y"]: panel["gridPos"]["h"] for panel in panels}
    tops, bottom = {}, 0
    for y in sorted(heights):
        tops[y], bottom = bottom, bottom + heights[y]
    plt.style.use("dark_background")
    figure = plt.figure(figsize=(20, bottom * 0.42), facecolor="#111217")
    empty = []
    for panel in panels:
        grid, unit = panel["gridPos"], panel["fieldConfig"]["defaults"].get("unit", "short")
        box = [grid["x"] / 24 + 0.03, 1 - (tops[grid["y"]] + grid["h"]) / bottom + 0.012, grid["w"] / 24 - 0.037, grid["h"] / bottom - 0.03]
        axes = figure.add_axes(box, facecolor="#181b1f")
        axes.set_title(panel["title"], fontsize=10, loc="left", color="#d7dae0")
        lines = series(prometheus, panel, start, end)
        if not any(points for _, points in lines):
            empty.append(panel["title"])
        if panel["type"] == "stat":
            last = [points[-1][1] for _, points in lines if points]
            axes.set_axis_off()
            axes.text(0.5, 0.45, value_text(last[0], unit) if last else "-", ha="center", va="center", fontsize=22, color="#73bf69")
            continue
        for legend, points in lines:
            axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1.3, label=legend)
        highest = max((y for _, points in lines for _, y in points), default=0)
        axes.set_ylim(0, highest * 1.35 or 1)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _, unit=unit: value_text(value, unit)))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.15)
        if lines:
            axes.legend(fontsize=6, loc="upper left", ncols=2 if len(lines) > 5 else 1, framealpha=0.4)
    figure.savefig(path, dpi=80, facecolor=figure.get_facecolor())
    if empty:
        sys.exit(f"pictures: panels without a sample: {', '.join(empty)}")


def idle(pid, seconds=10):
    """Seconds of processor and MiB of resident memory of a process that nobody asks anything."""
    ticks = lambda: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    before = ticks()
    time.sleep(seconds)
    used = (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    resident = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
    print(f"idle server: {used * 100:.2f} % of one core, {resident:.0f} MiB resident, with every shard up and no client")


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    data, running = args.work / "data", []

    def start(command, log):
        with open(args.work / log, "w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        running.append(process)
        return process

    def held_up():
        """A program that failed: the pictures would show less than they say."""
        for process in running:
            if process.poll():
                sys.exit(f"pictures: {process.args[:3]} ended with status {process.returncode}; see the logs in {args.work}")

    def run(*command):
        subprocess.run([args.gristmill, *command, "--data", str(data)], check=True, stdout=subprocess.DEVNULL)

    # Whoever ends this has everything that it started ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (data / "endpoints.json").unlink(missing_ok=True)
    try:
        server = start([args.gristmill, "serve", "--data", str(data), "--port-base", "0"], "server.log")
        ends = wait_for("the server", 30, lambda: json.loads((data / "endpoints.json").read_text()))
        idle(server.pid)
        prometheus_port = free_port()
        config = args.work / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: {STEP}s}}\nscrape_configs:\n  - job_name: gristmill\n"
                          f"    static_configs: [{{targets: [\"127.0.0.1:{ends['http_port']}\"]}}]\n")
        prometheus = f"http://127.0.0.1:{prometheus_port}"
        start(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={args.work / 'prometheus'}",
               f"--web.listen-address=127.0.0.1:{prometheus_port}"], "prometheus.log")
        wait_for("Prometheus", 30, lambda: ask(f"{prometheus}/api/v1/status/runtimeinfo"))
        run("app", "load", "word-count")
        lines = args.work / "lines.jsonl"
        write_lines(lines, 20_000 * args.secs)
        begin = time.time()
        start([args.loadgen, "run", "--op", "put", "-c", "20", "-d", "8", "--size", "100", "--secs", str(args.secs - 10),
               "--addr", f"127.0.0.1:{ends['port']}"], "loadgen.log")
        start([args.gristmill, "ingest", "word-count/lines", "--name", "pictures", "--format", "jsonl", "--key", "doc", str(lines),
               "--data", str(data)], "ingest.log")
        top = Terminal([args.gristmill, "top", "--data", str(data)])
        try:
            top.watch(8)
            top.picture(args.out / "top.png")
        finally:
            top.close()
        time.sleep(max(0, begin + args.secs - time.time()))
        held_up()
        panels = json.loads((Path(__file__).parent.parent / "deploy/grafana/gristmill.json").read_text())["panels"]
        dashboard(prometheus, [panel for panel in panels if panel.get("targets")], begin, time.time(), args.out / "dashboard.png")
        print(f"written: {args.out}/top.png, {args.out}/dashboard.png")
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


main()
