"""The rows of versus_rsync in which the receiver has an old version: their data, their runs, their table.

Each run of each side starts from nothing: a fresh share, a fresh state directory of the client and of the
server, the old version on both ends. So no run knows what an earlier one sent.

- rsync finds the old version as a copy.
- syncline: the client had pushed (or pulled) the old version itself, before and not timed. A copy would not
  do: what a client and a server remember of a file is bound to the file that they wrote or read.
- syncline, cold: the same, but another client pushed it; the one that is timed has a fresh state directory.
- syncline, copied: the old version was copied there, as for rsync; the server has never seen it either.
"""

import filecmp
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from versus_rsync_sides import run_client

SEED = 20261120
OLD_SECONDS, NEW_SECONDS = 1_700_000_000, 1_700_086_400
PIECE_BYTES = 16 << 20
EDITS = 1_000
PAIRS = {"small": "zstd-sys 2.0.13 to 2.0.16", "medium": "libc 0.2.170 to 0.2.180", "linux": "linux-source-6.1 176-1 to 192-2"}


class DeltaRow:
    """One case: how the new version differs, or which pair of files it is, and which way it goes."""

    durable = repeat = tls = False

    def __init__(self, name, title, edit=None, direction="push", inplace=False, pair=None):
        self.name, self.title, self.edit, self.direction = name, title, edit, direction
        self.inplace, self.pair = inplace, pair

    @property
    def sides(self):
        return [side for side in SIDES if side.name != "rsync -z" or self.pair]


class Side:
    """One way to send a row. `seen_by` says who has handled the old version before."""

    def __init__(self, name, program, flags=(), seen_by=None):
        self.name, self.program, self.flags, self.seen_by = name, program, list(flags), seen_by


SIDES = [
    Side("rsync", "rsync"),
    Side("rsync -z", "rsync", flags=["-z"]),
    Side("syncline", "syncline", seen_by="client"),
    Side("syncline, cold", "syncline", seen_by="another client"),
    Side("syncline, copied", "syncline", seen_by="nobody"),
]


def delta_rows(pairs=()):
    """All rows; `pairs` are given by the caller as (name, title, old, new)."""
    found = [
        DeltaRow("delta-overwritten", "4 KiB overwritten", "overwritten"),
        DeltaRow("delta-overwritten-pull", "4 KiB overwritten, pull", "overwritten", direction="pull"),
        DeltaRow("delta-overwritten-inplace", "4 KiB overwritten, --inplace", "overwritten", inplace=True),
        DeltaRow("delta-inserted", "100 B inserted at 0", "inserted"),
        DeltaRow("delta-scattered", "1,000 scattered one-byte edits", "scattered"),
        DeltaRow("delta-scattered-inplace", "1,000 scattered one-byte edits, --inplace", "scattered", inplace=True),
        DeltaRow("delta-appended", "{appended} appended", "appended"),
        DeltaRow("delta-unlike", "nothing in common", "unlike"),
    ]
    return found + [DeltaRow(f"pair-{name}", title, pair=(old, new)) for name, title, old, new in pairs]


def default_pairs(directory):
    """The pairs that benches/fetch_pairs fetches, there or not."""
    return [(name, title, directory / name / "old.tar", directory / name / "new.tar") for name, title in PAIRS.items()]


def reason_to_skip(row, syncline):
    """Why a row cannot run here, or None."""
    if row.pair and not all(path.is_file() for path in row.pair):
        return f"{row.pair[0]} or {row.pair[1].name} is missing; run: benches/fetch_pairs"
    if row.inplace and syncline:
        text = subprocess.run([syncline, "push", "--help"], capture_output=True, text=True).stdout
        if "--inplace" not in text:
            return "this syncline does not know --inplace"
    return None


# ---- data


def appended_bytes(size):
    return min(64 << 20, size // 16)


def write_noise(path, size, generator, mode="wb"):
    with open(path, mode) as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(generator.randbytes(min(PIECE_BYTES, size - start)))


def copy(source, target):
    """A copy with its times, by reflink where the filesystem can."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)


def make_new(edit, old, new, size):
    """Writes the new version of `old`."""
    generator = random.Random(f"{SEED} {edit}")
    if edit == "unlike":
        return write_noise(new, size, generator)
    if edit == "inserted":
        with open(old, "rb") as source, open(new, "wb") as target:
            target.write(generator.randbytes(100))
            shutil.copyfileobj(source, target, PIECE_BYTES)
        return None
    copy(old, new)
    if edit == "appended":
        return write_noise(new, appended_bytes(size), generator, "ab")
    with open(new, "r+b") as file:
        if edit == "overwritten":
            # Not where a block begins.
            file.seek(max(0, size // 3 | 1))
            file.write(generator.randbytes(4096))
        for offset in sorted(generator.sample(range(size), EDITS)) if edit == "scattered" else ():
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ generator.randint(1, 255)]))
    return None


class Versions:
    """Directories `old` and `new` with a file each, of which the times differ."""

    def __init__(self, work, size):
        self.directory, self.size = work / "versions", size
        self.old, self.new = self.directory / "old", self.directory / "new"
        self.made = None

    def make(self, row):
        wanted = row.pair or row.edit
        if self.made == wanted:
            return
        print(f"making the data: {row.edit or row.title}", file=sys.stderr)
        keeps_old = row.edit and isinstance(self.made, str)
        for directory in (self.new,) if keeps_old else (self.old, self.new):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        old, new = self.old / "file.bin", self.new / "file.bin"
        if row.pair:
            copy(row.pair[0], old)
            copy(row.pair[1], new)
        else:
            if not keeps_old:
                write_noise(old, self.size, random.Random(SEED))
            make_new(row.edit, old, new, self.size)
        os.utime(old, (OLD_SECONDS, OLD_SECONDS))
        os.utime(new, (NEW_SECONDS, NEW_SECONDS))
        self.made = wanted


# ---- measuring


class Stage:
    """The directories of one run: what a server needs, and what the client has."""

    def __init__(self, parent):
        self.work = parent / "stage"
        shutil.rmtree(self.work, ignore_errors=True)
        self.share, self.local = self.work / "share", self.work / "local"
        self.share.mkdir(parents=True)
        self.local.mkdir()


def measure_delta(row, place, versions, programs, runs):
    """One row: medians by the name of the side. `programs` maps a program to the function that serves with it."""
    versions.make(row)
    sides = [side for side in row.sides if side.program in programs]
    results = {side.name: [] for side in sides}
    for run in range(runs):
        for side in sides if run % 2 == 0 else sides[::-1]:
            result = measure_once(row, side, Stage(place.work), versions, programs[side.program], warm_up=run == 0)
            results[side.name].append(result)
            print(f"  {row.name} {side.name} {run}: {result['wall']:.3f} s, {result['payload']:,} B", file=sys.stderr)
    return {name: medians(found) for name, found in results.items()}


def measure_once(row, side, stage, versions, serve, warm_up):
    server = serve(stage, row)
    try:
        local, remote, target, extra = prepare(row, side, stage, versions, server)
        flags = [*side.flags, *(["--inplace"] if row.inplace else [])]
        command = server.client(row.direction, local, remote, flags, **extra)
        # What was written before must not be flushed on this run's time.
        os.sync()
        result = run_client(command, server, stage.work / "client.log", sample_memory=warm_up)
        if warm_up:
            filecmp.clear_cache()
            if not filecmp.cmp(versions.new / "file.bin", target / "file.bin", shallow=False):
                sys.exit(f"versus_rsync: {side.name} did not transfer everything in {row.name}")
        return result
    finally:
        server.stop()


def prepare(row, side, stage, versions, server):
    """Brings the old version to both ends. What to send, where, what is compared, and the client's state."""
    extra = {} if side.program == "rsync" else {"home": stage.work / "home"}
    other = {} if side.program == "rsync" else {"home": stage.work / "other-home"}
    seen = {"client": extra, "another client": other}.get(side.seen_by)

    def run(direction, local, as_client):
        run_client(server.client(direction, local, "target", **as_client), server, stage.work / "before.log", False)

    if row.direction == "push":
        if seen is None:
            copy(versions.old, stage.share / "target")
        else:
            run("push", versions.old, seen)
        return versions.new, "target", stage.share / "target", extra
    local = stage.local / "back"
    if seen is None:
        copy(versions.new, stage.share / "target")
        copy(versions.old, local)
    else:
        run("push", versions.old, other)
        if side.seen_by == "client":
            run("pull", local, extra)
        else:
            copy(versions.old, local)
        run("push", versions.new, other)
    return local, "target", local, extra


def medians(runs):
    timed = runs[1:]
    keys = ("wall", "client_cpu", "server_cpu", "payload")
    result = {key: statistics.median(run[key] for run in timed) for key in keys}
    result["cpu"] = statistics.median(run["client_cpu"] + run["server_cpu"] for run in timed)
    result["spread"] = (min(run["wall"] for run in timed), max(run["wall"] for run in timed))
    result["memory"] = runs[0]["memory"]
    return result


# ---- the table


def delta_table(results, size, shown_bytes, shown_seconds):
    head = ["one file, its old version on both ends", "", "s", "of rsync", "CPU s", "of rsync", "wire", "of rsync"]
    head += ["of rsync -z", "memory MiB"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, sides in results:
        title = row.title.format(size=shown_bytes(size), appended=shown_bytes(appended_bytes(size)))
        rsync, squeezed = sides.get("rsync"), sides.get("rsync -z")
        for name, side in sides.items():
            ratio = lambda key, base, own=side: shown_ratio(own[key] / base[key]) if base and base is not own else "–"
            cpu = " / ".join(shown_seconds(side[key]) for key in ("client_cpu", "server_cpu"))
            memory = " / ".join(f"{side['memory'][end][1] / (1 << 20):.1f}" for end in ("client", "server"))
            cells = [title, name, shown_seconds(side["wall"]), ratio("wall", rsync), cpu, ratio("cpu", rsync)]
            cells += [f"{side['payload']:,.0f}", ratio("payload", rsync), ratio("payload", squeezed), memory]
            lines.append("| " + " | ".join(cells) + " |")
            title = ""
    return lines


def shown_ratio(ratio):
    return f"**{ratio:.2f}**" if ratio >= 0.005 else f"**{ratio:.1g}**"


def delta_text(runs, results):
    spread = max(side["spread"][1] / side["spread"][0] for _, sides in results for side in sides.values())
    return (
        f"Made by `benches/versus_rsync`. Medians of {runs - 1} runs after a warm-up, all in turn; the slowest run of "
        f"any cell took {spread:.2f} times the fastest. Every run starts with fresh directories and fresh state. "
        "*syncline*: the client sent the old version before. *cold*: another client did; this one has an empty "
        "state directory. *copied*: the old version was copied to the receiver, which has to read it first (rsync "
        "always does). Nothing is flushed (`--durability none`). CPU is user and system seconds of client / server. "
        "Wire is TCP payload in both directions together, in bytes, for both programs from the counters of the "
        "loopback interface without the headers. Memory is the peak of client / server without file mappings."
    )
