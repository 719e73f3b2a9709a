"""What versus_rsync runs and reads: the network, the two daemons, and one run of a client.

Knows nothing of rows, data or tables.
"""

import ctypes.util
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

CLIENT_SECONDS_MAX = 900
TICKS = os.sysconf("SC_CLK_TCK")
OWN_NETWORK = "SYNCLINE_BENCH_OWN_NETWORK"


# ---- the network: bytes are counted on the loopback interface, for both sides alike


def enter_own_network():
    """Starts this script again in a network namespace of its own, so that nobody else is counted."""
    if os.environ.get(OWN_NETWORK):
        raise_loopback()
        return True
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return False
    if subprocess.run([unshare, "--net", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        return False
    os.environ[OWN_NETWORK] = "1"
    os.execv(unshare, [unshare, "--net", sys.executable, os.path.realpath(sys.argv[0]), *sys.argv[1:]])


def raise_loopback():
    """What `ip link set lo up` does."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        siocgifflags, siocsifflags, up = 0x8913, 0x8914, 1
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, siocgifflags, struct.pack("16sH14x", b"lo", 0)))[1]
        fcntl.ioctl(control, siocsifflags, struct.pack("16sH14x", b"lo", flags | up))


def loopback_traffic():
    """Bytes and packets that the loopback interface has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return tuple(map(int, counters.split()[:2]))
    return 0, 0


def payload_of(carried, packets):
    """TCP payload of what the interface carried for one connection of IPv4.

    IP and TCP take 20 bytes each of a packet (loopback counts no Ethernet header), timestamps 12; what else
    stands in the two packets that open a connection is 8 bytes each. It equals what syncline counts itself.
    """
    has_timestamps = Path("/proc/sys/net/ipv4/tcp_timestamps").read_text().strip() != "0"
    return max(0, carried - packets * (52 if has_timestamps else 40) - 16)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- processes


def descendants(pid):
    """The process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    """User and system time of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class MemorySampler(threading.Thread):
    """Peak memory of process trees: resident, and resident without file mappings, in bytes.

    Summed over the processes of a side; pages that a fork shares count for each.
    """

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.ended = pids, threading.Event()
        self.resident = {side: {} for side in pids}
        self.anonymous = dict.fromkeys(pids, 0)

    def sample(self):
        for side, root in self.pids.items():
            anonymous = 0
            for pid in descendants(root):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                value = lambda key: int((re.search(rf"^{key}:\s+(\d+)", status, re.M) or [0, 0])[1]) << 10
                peaks = self.resident[side]
                peaks[pid] = max(peaks.get(pid, 0), value("VmHWM"))
                anonymous += value("RssAnon")
            self.anonymous[side] = max(self.anonymous[side], anonymous)

    def run(self):
        while not self.ended.wait(0.005):
            self.sample()

    def finish(self):
        self.ended.set()
        self.join()
        self.sample()
        return {side: (sum(self.resident[side].values()), self.anonymous[side]) for side in self.pids}


class CpuGroup:
    """A control group that counts the CPU time of a server and all its children by the nanosecond.

    Without one (no root, or no such controller) it is counted in the kernel's ticks of 10 ms.
    """

    numbers = itertools.count()
    PLACES = (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e-9), ("/sys/fs/cgroup", "cpu.stat", 1e-6))

    def __init__(self):
        self.directory = None
        for parent, counter, unit in self.PLACES:
            directory = Path(parent) / f"versus-rsync-{os.getpid()}-{next(CpuGroup.numbers)}"
            try:
                directory.mkdir(exist_ok=True)
                if (directory / counter).exists():
                    self.directory, self.counter, self.unit = directory, directory / counter, unit
                    return
                directory.rmdir()
            except OSError:
                pass

    def join(self):
        if self.directory:
            (self.directory / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self):
        """User and system time, or None where it is not counted."""
        if not self.directory:
            return None
        return int(re.search(r"(?:usage_usec )?(\d+)", self.counter.read_text())[1]) * self.unit

    def remove(self):
        try:
            if self.directory:
                self.directory.rmdir()
        except OSError:
            pass


def set_death_signal():
    """The server ends with this script, however that ends."""
    ctypes.CDLL(ctypes.util.find_library("c")).prctl(1, signal.SIGTERM)


class Server:
    """A daemon that serves the folder `S`, and the commands of its client."""

    def __init__(self, command, log):
        self.log, self.group = log, CpuGroup()

        def before():
            set_death_signal()
            self.group.join()

        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, preexec_fn=before
            )

    def fail(self, text):
        self.stop()
        sys.exit(f"versus_rsync: {text}:\n{Path(self.log).read_text(errors='replace')[-2000:]}")

    def settle(self):
        """Waits until the children of the last connection are gone, so that their time is counted."""
        deadline = time.monotonic() + 30
        while len(descendants(self.process.pid)) > 1 and time.monotonic() < deadline:
            time.sleep(0.005)

    def cpu(self):
        counted = self.group.seconds()
        return cpu_seconds(self.process.pid) if counted is None else counted

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.group.remove()


class RsyncServer(Server):
    def __init__(self, program, place, row):
        self.program, self.port = program, free_port()
        self.flags = ["-a"] + (["--fsync"] if row.durable else [])
        config = place.work / "rsyncd.conf"
        owner = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        config.write_text(f"use chroot = no\n{owner}[S]\npath = {place.share}\nread only = no\n")
        super().__init__(
            [program, "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={self.port}", f"--config={config}"],
            place.work / "rsyncd.log",
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.fail("rsync's daemon does not start")
                time.sleep(0.01)
        self.settle()

    def client(self, direction, local, remote, flags=()):
        """The command that brings `local` to `remote`, or back: directories with what is in them."""
        link = f"rsync://127.0.0.1:{self.port}/S/{remote}/"
        ends = [f"{local}/", link] if direction == "push" else [link, f"{local}/"]
        return [self.program, *self.flags, *flags, *ends]


class SynclineServer(Server):
    def __init__(self, program, place, row):
        self.program, self.row, self.home = str(program), row, place.work / "client-home"
        self.durability = ["--durability", "barrier" if row.durable else "none"]
        self.plain = [] if row.tls else ["--plain"]
        command = [self.program, "serve", f"{place.share}=S", "--listen", "127.0.0.1:0", "--open", "write"]
        # As rsync does, which keeps nothing of what it replaces; and hundreds of runs would fill the disk.
        command += ["--keep-versions", "off"]
        command += [*self.plain, *self.durability, "--json", "--home", str(place.work / "server-home")]
        super().__init__(command, place.work / "syncline.log")
        if not select.select([self.process.stdout], [], [], 20)[0]:
            self.fail("syncline serve says nothing")
        try:
            ready = json.loads(self.process.stdout.readline())
            invite = ready["shares"][0].get("invite") or ""
            self.base = f"syncline://{ready['listen']}/S"
        except (ValueError, KeyError, TypeError) as error:
            self.fail(f"syncline serve is not ready ({error})")
        self.fragment = "#" + invite.partition("#")[2] if row.tls and "#" in invite else ""

    def client(self, direction, local, remote, flags=(), home=None):
        """The command that brings `local` to `remote`, or back; `home` is the state of another client."""
        link = f"{self.base}/{remote}/{self.fragment}"
        ends = [f"{local}/", link] if direction == "push" else [link, f"{local}/"]
        durability = self.durability if direction == "pull" else []
        flags = [*flags, *self.plain, *durability, "--json", "--home", str(home or self.home)]
        return [self.program, direction, *ends, *flags]


# ---- one run


def run_client(command, server, log, sample_memory):
    """Runs one client to its end: wall and CPU seconds, bytes on the wire, peaks of memory."""
    cpu_before, (wire_before, packets_before) = server.cpu(), loopback_traffic()
    with open(log, "w+b") as output:
        start = time.perf_counter()
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        sampler = MemorySampler({"client": client.pid, "server": server.process.pid}) if sample_memory else None
        if sampler:
            sampler.start()
        watchdog = threading.Timer(CLIENT_SECONDS_MAX, client.kill)
        watchdog.start()
        _, status, usage = os.wait4(client.pid, 0)
        wall = time.perf_counter() - start
        watchdog.cancel()
        client.returncode = os.waitstatus_to_exitcode(status)
        memory = sampler.finish() if sampler else None
        if client.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            sys.exit(f"versus_rsync: failed with {client.returncode}: {' '.join(command)}\n{text}")
    server.settle()
    wire, packets = loopback_traffic()
    wire, packets = wire - wire_before, packets - packets_before
    return {
        "wall": wall,
        "client_cpu": usage.ru_utime + usage.ru_stime,
        "server_cpu": server.cpu() - cpu_before,
        "wire": wire,
        "payload": payload_of(wire, packets),
        "memory": memory,
    }
