"""What the trials share: nodes as processes, and a client that speaks RESP."""

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MIB = 1 << 20
BEGAN = time.monotonic()


class Violation(Exception):
    """Something that must hold does not."""


def say(what):
    print(f"{time.monotonic() - BEGAN:7.1f} s  {what}", flush=True)


def percentile(times, part):
    """The nearest-rank percentile of `times`, which must be sorted."""
    return times[max(0, math.ceil(part * len(times)) - 1)]


def until(what, ask, seconds=60, pause=0.02):
    """The first answer of `ask` that counts as true. A connection that fails counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
        except (OSError, EOFError, Refused):
            pass
        if time.monotonic() > deadline:
            raise Violation(f"not within {seconds} s: {what}")
        time.sleep(pause)


def program():
    """The path of quorate-kv: QUORATE_KV, or a release build of this checkout."""
    if given := os.environ.get("QUORATE_KV"):
        return os.path.abspath(given)
    build = ["cargo", "build", "--quiet", "--release", "-p", "quorate-kv"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    return os.path.abspath(os.path.join(ROOT, target, "release", "quorate-kv"))


class Refused(Exception):
    """The server answered with an error."""

    @property
    def is_unknown(self):
        """Whether the command may have had an effect."""
        return "unknown" in str(self)


class Client:
    """A connection that is opened at the first command, and again after it broke."""

    def __init__(self, address, timeout=10, connect_timeout=None):
        self.address, self.timeout = address, timeout
        self.connect_timeout = connect_timeout or timeout
        self.socket = self.file = None

    def send(self, *commands):
        if self.socket is None:
            self.socket = socket.create_connection(self.address, timeout=self.connect_timeout)
            self.socket.settimeout(self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.file = self.socket.makefile("rb")
        parts = []
        for command in commands:
            parts.append(b"*%d\r\n" % len(command))
            for word in command:
                word = word if isinstance(word, bytes) else str(word).encode()
                parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def ask(self, *command):
        """The answer to a command. Raises Refused, OSError or EOFError."""
        return self.ask_all([command])[0]

    def ask_all(self, commands):
        """The answers to a pipeline. Raises the first refusal when all answers were read."""
        try:
            self.send(*commands)
            answers = [self._answer() for _ in commands]
        except (OSError, EOFError):
            self.close()
            raise
        for answer in answers:
            if isinstance(answer, Refused):
                raise answer
        return answers

    def _answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(max(0, int(rest)))]
        if kind == b"-":
            return Refused(rest.decode())
        return int(rest) if kind == b":" else rest

    def close(self):
        for end in (self.file, self.socket):
            if end is not None:
                end.close()
        self.socket = self.file = None


def text(address):
    return f"{address[0]}:{address[1]}"


class Node:
    """A process of quorate-kv with its folder. `within` are words before its command line."""

    def __init__(self, folder, number, client, peer, arguments, within=()):
        self.number, self.client, self.peer = number, client, peer
        self.arguments, self.within = arguments, within
        self.data = os.path.join(folder, str(number))
        self.log = os.path.join(folder, f"{number}.log")
        self.process = None

    def start(self):
        command = [
            *self.within, PROGRAM, "serve", "--id", str(self.number), "--client", text(self.client),
            "--peer", text(self.peer), "--data", self.data, *self.arguments,
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL)
        RUNNING.add(self)

    def end(self, how=signal.SIGTERM):
        """The exit code of the process, which gets the signal `how`."""
        self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        RUNNING.discard(self)
        return status

    def ask(self, *command, timeout=10):
        """The answer to a command on a connection of its own."""
        client = Client(self.client, timeout)
        try:
            return client.ask(*command)
        finally:
            client.close()

    def status(self):
        """What RAFT STATUS says."""
        words = [str(word, "utf-8") for word in self.ask("RAFT", "STATUS")]
        return dict(zip(words[::2], words[1::2]))

    def leads(self):
        return self.status().get("role") == "leader"

    def serves(self, seconds=60):
        """Waits until the node answers a linearizable read."""
        until(f"node {self.number} serves", lambda: self.ask("DBSIZE") is not None, seconds)

    def memory(self, field):
        """A field of /proc/PID/status in bytes: VmRSS is what is in use, VmHWM the most so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as refs:
            refs.write("5")  # Sets VmHWM to VmRSS.


def leader_of(nodes):
    return until("a node leads", lambda: next((node for node in nodes if leads(node)), None))


def leads(node):
    try:
        return node.leads()
    except (OSError, EOFError, Refused):
        return False


def check_running(nodes):
    for node in nodes:
        if node.process.poll() is not None:
            raise Violation(f"node {node.number} ended by itself with {node.process.returncode}")


def run(trial):
    """Runs a trial in a temporary folder. Exits with 1 after a violation."""
    status = 1
    with tempfile.TemporaryDirectory(prefix="quorate-trial-") as folder:
        try:
            trial(folder)
            status = 0
        except Violation as violation:
            say(f"VIOLATION: {violation}")
            tell_logs(folder)
        finally:
            for node in list(RUNNING):
                node.end(signal.SIGKILL)
    sys.exit(status)


def tell_logs(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".log"):
            with open(os.path.join(folder, name), errors="replace") as log:
                lines = log.readlines()[-15:]
            print(f"--- the end of {name}\n{''.join(lines)}", flush=True)


RUNNING = set()
PROGRAM = program()
# SIGTERM ends a script as an exception does, so that it cleans up.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
