"""What crowd runs and reads: the servers on their core, the load on the other, memory and metrics.

Knows nothing of cases or tables. Builds on versus_rsync_sides: CPU groups, process trees, how a server ends.
"""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import versus_rsync_sides as sides

MIB = 1 << 20
START_SECONDS_MAX = 20
FREE_BYTES_MIN = 4 << 30


def stop_with(text):
    sys.exit(f"crowd: {text}")


def need_room(directory, size):
    """Ends before a case would leave less than 4 GB of the disk."""
    free = shutil.disk_usage(directory).free
    if free - size < FREE_BYTES_MIN:
        needed = (size + FREE_BYTES_MIN) >> 20
        stop_with(f"{directory} has {free >> 20} MiB free, this case needs {needed} MiB; free some, or use --dir")


# ---- what a process tree holds


def smaps(pid):
    """Proportional memory, and the anonymous part of it, in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    value = lambda key: int((re.search(rf"^{key}:\s+(\d+)", text, re.M) or [0, 0])[1]) << 10
    return value("Pss"), value("Pss_Anon")


def proportional(root):
    """Processes of a tree, and their memory: pages that several share count once."""
    pids = sides.descendants(root)
    found = [smaps(pid) for pid in pids]
    return {"processes": len(pids), "pss": sum(pss for pss, _ in found), "anonymous": sum(anon for _, anon in found)}


def anonymous(pid):
    """Resident anonymous memory of one process in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+)", text, re.M)[1]) << 10


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Watch(threading.Thread):
    """Samples until it is told to end, and keeps the sample that is the greatest by `key`."""

    def __init__(self, sample, key, seconds):
        super().__init__(daemon=True)
        self.sample, self.key, self.seconds = sample, key, seconds
        self.most, self.ended = None, threading.Event()

    def run(self):
        while not self.ended.wait(self.seconds):
            self.take()

    def take(self):
        try:
            found = self.sample()
        except OSError:
            return
        if self.most is None or self.key(found) > self.key(self.most):
            self.most = found

    def finish(self):
        self.ended.set()
        self.join()
        if self.most is None:
            self.take()
        return self.most


def watch_anonymous(server):
    """Follows the anonymous memory of a server of one process."""
    watch = Watch(lambda: anonymous(server.process.pid), lambda found: found, 0.02)
    watch.start()
    return watch


def watch_tree(server):
    """Follows a server with all its processes: the sample with the most of them counts, then the largest."""
    key = lambda found: (found["processes"], found["pss"])
    watch = Watch(lambda: proportional(server.process.pid), key, 0.1)
    watch.start()
    return watch


# ---- servers


class Rsync(sides.Server):
    """rsync's daemon: no chroot, any number of connections, a backlog for all of them."""

    def __init__(self, place):
        self.port = sides.free_port()
        config = place.work / "rsyncd.conf"
        owner = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        text = f"use chroot = no\nlisten backlog = 4096\nmax connections = 0\n{owner}[S]\npath = {place.share}\nread only = no\n"
        config.write_text(text)
        command = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={self.port}", f"--config={config}"]
        super().__init__(["taskset", "-c", str(place.server_core), *command], place.work / "rsyncd.log")
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self.settle()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.fail("rsync's daemon does not start")
                time.sleep(0.01)

    def push(self, source, remote, *flags):
        return ["rsync", "-a", *flags, f"{source}/", f"rsync://127.0.0.1:{self.port}/S/{remote}/"]


class Syncline(sides.Server):
    """syncline serve, open to write."""

    def __init__(self, place, *flags, tls=False):
        self.place, self.tls = place, tls
        command = ["taskset", "-c", str(place.server_core), str(place.bin / "syncline"), "serve", f"{place.share}=S"]
        command += ["--listen", "127.0.0.1:0", "--open", "write", "--keep-versions", "off", "--json"]
        command += ["--metrics", "127.0.0.1:0", "--home", str(place.work / "server-home"), *flags]
        command += [] if tls else ["--plain"]
        super().__init__(command, place.work / "syncline.log")
        if not select.select([self.process.stdout], [], [], START_SECONDS_MAX)[0]:
            self.fail("syncline serve says nothing")
        try:
            ready = json.loads(self.process.stdout.readline())
            self.link, self.metrics_at = f"syncline://{ready['listen']}/S", ready["metrics"]
            invite = ready["shares"][0].get("invite") or ""
        except (ValueError, KeyError, TypeError) as error:
            self.fail(f"syncline serve is not ready ({error})")
        self.fragment = "#" + invite.partition("#")[2] if tls and "#" in invite else ""
        # What it says later is not read; it must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def metrics(self):
        """All series of /metrics without labels by name, those with labels with them."""
        with urllib.request.urlopen(f"http://{self.metrics_at}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def turns(self):
        """The longest turn in milliseconds, and how many took more than 25."""
        found = self.metrics()
        slow = found["syncline_turn_seconds_count"] - found['syncline_turn_seconds_bucket{le="0.025"}']
        return {"turn_max_ms": found["syncline_turn_longest_seconds"] * 1000, "turns_over_25_ms": int(slow)}

    def open_connections(self):
        found = self.metrics()
        return int(sum(value for name, value in found.items() if name.startswith("syncline_connections{")))

    def push(self, source, remote, *flags, home="client-home"):
        link = f"{self.link}/{remote}/{self.fragment}"
        command = [str(self.place.bin / "syncline"), "push", f"{source}/", link, "--json", *flags]
        return [*command, *([] if self.tls else ["--plain"]), "--home", str(self.place.work / home)]

    def load_command(self, *flags):
        command = [str(self.place.bin / "syncline-load"), "--json", *map(str, flags), self.link + self.fragment]
        return command + ([] if self.tls else ["--plain"])

    def load(self, *flags, seconds_max):
        """Runs syncline-load to its end; its report. Ends this script where there is none."""
        return self.begin_load(*flags).finish(seconds_max)

    def begin_load(self, *flags, nice=False):
        """One that is nice leaves the core to a client that is measured."""
        return Load(self, [*(["nice", "-n", "19"] if nice else []), *self.load_command(*flags)])


class Load:
    """A load generator that runs."""

    def __init__(self, server, command):
        self.server, self.command = server, command
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=sides.set_death_signal
        )

    def finish(self, seconds_max):
        try:
            output, errors = self.process.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.server.fail(f"took longer than {seconds_max} s: {' '.join(self.command)}")
        try:
            report = json.loads(output.splitlines()[-1])
            report["seconds"]  # what did not run has none
        except (ValueError, IndexError, KeyError):
            self.server.fail(f"failed with {self.process.returncode}: {' '.join(self.command)}\n{output}{errors}")
        if report["errors"] or report["setup_failed"]:
            print(f"  errors: {report['errors']}; {report['setup_failed']} clients were not ready", file=sys.stderr)
        report["wall"] = time.perf_counter() - self.started
        return report

    def interrupt(self, seconds_max=60):
        """Ends it early; its report so far."""
        self.process.send_signal(signal.SIGINT)
        return self.finish(seconds_max)


# ---- many clients


def run_processes(commands, seconds_max):
    """Starts all as fast as they start and waits for all: wall seconds, and how many failed.

    Starting is part of the time. They inherit the core of this script.
    """
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "close_fds": False}
    started = time.perf_counter()
    running = [subprocess.Popen(command, **quiet) for command in commands]
    deadline, failed = time.monotonic() + seconds_max, 0
    for process in running:
        try:
            failed += process.wait(max(0.01, deadline - time.monotonic())) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            failed += 1
    return time.perf_counter() - started, failed
