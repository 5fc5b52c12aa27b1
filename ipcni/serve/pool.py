"""The server: keeps so many workers, replaces those that end, and ends those that hang. It serves nothing itself."""

import contextlib
import gc
import importlib
import mmap
import os
import pathlib
import pkgutil
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping

import ipcni
from ipcni.errors import CniError
from ipcni.serve import wire
from ipcni.serve.worker import Limits, Worker
from ipcni.serve.worker import main as work
from ipcni.shell import files, jinja, process

_SLOT = struct.Struct("dQ")  # since when a worker is busy (0: it is not), and how many requests it has begun
_GRACE = 15  # seconds to undo in, before a worker that hangs is killed
_FIRST_FD = 3  # sd_listen_fds(3)


def listen(path: str, queue: int, env: Mapping[str, str]) -> socket.socket:
    """The socket: the one that systemd hands over, or one at `path`, root's alone. Raises CniError where another server is there."""
    if env.get("LISTEN_PID") == str(os.getpid()) and env.get("LISTEN_FDS") == "1":
        handed = socket.socket(fileno=_FIRST_FD)
        handed.setblocking(False)
        return handed
    folder = os.path.dirname(os.path.abspath(path))
    try:
        files.make_folders(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        owned = os.stat(folder)
        if owned.st_uid != os.geteuid() or owned.st_mode & 0o022:
            raise CniError(
                f"others may write to {folder}", details="who can put a socket there gets the calls; --socket says another place"
            )
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if _answers(path):
            raise CniError(f"a server is there already: {path}", details="--socket says another place")
        if pathlib.Path(path).is_socket():  # and nothing else is ours to remove
            os.unlink(path)
        old = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(old)
        made.listen(queue)
    except OSError as error:
        raise CniError(
            f"cannot listen at {path}: {error.strerror or error}", details="serving needs root, and a folder on a writable disk"
        ) from error
    return made


def _answers(path: str) -> bool:
    """Whether somebody listens; and not only workers which a server that was killed has left at their last call."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asked:
        try:
            asked.connect(path)
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
        pid, _ = wire.peer(asked)
        return not pid or os.path.exists(f"/proc/{pid}")  # 0: in other namespaces


class Pool:
    """`workers` processes over one socket. `idle` seconds without a request end it (0: never). Heeds signals from the beginning."""

    def __init__(self, workers: int, limits: Limits, idle: float) -> None:
        self._limits, self._idle = limits, idle
        self._slots: list[int] = [0] * workers
        self._started = [0.0] * workers
        self._board = mmap.mmap(-1, _SLOT.size * workers)
        self._stop_read, self._stop_write = os.pipe()
        self._build = wire.build()
        self._ending = self._again = False
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._told)

    def run(self, listener: socket.socket, env: Mapping[str, str]) -> bool:
        """Serves until it is told to end, or nobody has wanted anything for long. True: start anew, as other code."""
        self._listener = listener
        _load_everything()
        if wire.build() != self._build:  # an upgrade is under way: what was loaded may be of both
            return self._again or not self._ending
        gc.collect()
        gc.freeze()
        quiet, seen = time.monotonic(), 0
        self._fill()
        _ready(env.get("NOTIFY_SOCKET", ""))
        while not self._ending:
            select.select([self._woken], [], [], 1.0)
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
            self._reap()
            self._kill_hung()
            self._fill()
            now = sum(self._read(slot)[1] for slot in range(len(self._slots)))
            if now != seen or any(self._read(slot)[0] for slot in range(len(self._slots))):
                quiet, seen = time.monotonic(), now
            if self._idle and time.monotonic() - quiet > self._idle:
                break
        self._finish()
        return self._again

    def _told(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._again = number == signal.SIGHUP and self._again == self._ending  # who was told to end does not start anew
            self._ending = True

    def _read(self, slot: int) -> tuple[float, int]:
        since, count = _SLOT.unpack_from(self._board, slot * _SLOT.size)
        return since, count

    def _fill(self) -> None:
        """A worker for each empty place; one that ended at once is not replaced at once."""
        for slot, pid in enumerate(self._slots):
            if not pid and time.monotonic() - self._started[slot] > 0.2:
                self._start(slot)

    def _start(self, slot: int) -> None:
        self._started[slot] = time.monotonic()
        _, count = self._read(slot)
        _SLOT.pack_into(self._board, slot * _SLOT.size, 0.0, count)
        try:
            pid = os.fork()
        except OSError:  # for want of memory, or of processes: it is tried again
            return
        if pid:
            self._slots[slot] = pid
            return
        signal.set_wakeup_fd(-1)
        os.close(self._stop_write)

        def busy(now: bool) -> None:
            _, count = self._read(slot)
            _SLOT.pack_into(self._board, slot * _SLOT.size, time.monotonic() if now else 0.0, count + now)

        work(Worker(self._listener, self._stop_read, self._limits, self._build, busy))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._slots = [0 if each == pid else each for each in self._slots]

    def _kill_hung(self) -> None:
        """A worker that did not even undo in time; its client gets an error object."""
        for slot, pid in enumerate(self._slots):
            since, _ = self._read(slot)
            if pid and since and time.monotonic() - since > self._limits.seconds + _GRACE:
                os.kill(pid, signal.SIGKILL)

    def _finish(self) -> None:
        """Nobody new is served; who is being served is served to the end."""
        os.close(self._stop_write)
        if not os.get_inheritable(
            self._listener.fileno()
        ):  # systemd's is the next server's; ours would be open till the last worker ends
            self._listener.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + self._limits.seconds + _GRACE
        while any(self._slots) and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)
        for pid in filter(None, self._slots):
            os.kill(pid, signal.SIGKILL)


def _load_everything() -> None:
    """All code and all templates, so that an upgrade meanwhile changes nothing here."""
    for module in pkgutil.walk_packages(ipcni.__path__, "ipcni."):
        if not module.name.startswith("ipcni.commands"):
            importlib.import_module(module.name)
    jinja.load_all()
    process.load()


def _ready(place: str) -> None:
    """Tells systemd, if it started us (sd_notify(3))."""
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.connect("\0" + place[1:] if place.startswith("@") else place)
            notify.sendall(b"READY=1")
