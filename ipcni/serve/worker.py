"""One process of the pool: takes one request at a time from the socket that all of them share."""

import contextlib
import fcntl
import gc
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

import msgspec

from ipcni import entry
from ipcni.errors import Interrupted
from ipcni.protocol import skel
from ipcni.serve import wire
from ipcni.shell import signals
from ipcni.shell.run import Runner
from ipcni.shell.shell import Shell

_SLOW = 2.0  # seconds that a client may take to say what it wants
_F_SETSIG = 10  # fcntl(2); Python has no name for it


class Limits(msgspec.Struct, frozen=True):
    """Of one worker: `seconds` a request may take, `requests` it serves, `memory` it may grow to (MiB) before another takes its place."""

    seconds: float = 240
    requests: int = 1000
    memory: int = 256


class Worker:
    """`busy` is told when a request begins and ends; `stop` is a pipe that closes when the server is to end."""

    def __init__(self, listener: socket.socket, stop: int, limits: Limits, build: str, busy: Callable[[bool], None]) -> None:
        self._listener, self._stop, self._limits, self._build, self._busy = listener, stop, limits, build, busy
        self._shell = Shell(warm=True)
        self._here = _place("self")

    def run(self) -> None:
        """Serves until the server ends or this worker has had enough."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the server ends us, by its pipe
        self._shell.restock()
        with select.epoll() as events:
            events.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            events.register(self._stop, 0)  # only that it hangs up
            for _ in range(self._limits.requests):
                while True:
                    ready = {fd for fd, _ in events.poll()}
                    if self._stop in ready:
                        return
                    try:
                        conn, _ = self._listener.accept()
                        break
                    except BlockingIOError:  # another one was faster
                        continue
                with conn:
                    self._serve(conn)
                self._shell.restock()
                gc.collect(0)
                if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > self._limits.memory << 10:
                    return

    def _serve(self, conn: socket.socket) -> None:
        conn.settimeout(_SLOW)
        try:
            call = wire.receive(conn)
        except (OSError, ValueError):
            return
        self._busy(True)
        try:
            with contextlib.suppress(OSError):
                if not self._may(conn, call):
                    conn.sendall(wire.REFUSED)
                    return
                conn.sendall(wire.ACCEPTED)
                with wire.told_to_go(conn) as fds:
                    if fds:
                        conn.sendall(bytes([self._perform(conn, call, fds)]))
        finally:
            os.chdir("/")
            self._busy(False)

    def _may(self, conn: socket.socket, call: wire.Call) -> bool:
        """Only for root's processes that are where we are, and whose plugins are of this very code."""
        pid, uid = wire.peer(conn)
        if uid != os.geteuid() or call.build != self._build:
            return False
        try:
            there = _place(pid)
            os.chdir(f"/proc/{pid}/cwd")
        except OSError:
            return False
        return all(os.path.samestat(mine, other) for mine, other in zip(self._here, there, strict=True))

    def _perform(self, conn: socket.socket, call: wire.Call, fds: list[int]) -> int:
        """What the plugin would do as a process of its own. A client that hangs up, or time that is up, is its SIGTERM."""

        def stop(number: int, _frame: object) -> None:
            if number == signal.SIGALRM or self._hung_up(conn):
                signals.enough()
                raise Interrupted

        signals.insist(stop)
        answer = None
        with signals.undisturbed() as before:
            ours = os.dup(2)
            os.dup2(fds[2], 2)  # another suite's plugin may have something to say
            try:
                signal.signal(signal.SIGALRM, stop)
                signal.signal(signal.SIGIO, stop)
                signal.setitimer(signal.ITIMER_REAL, self._limits.seconds)
                _tell_of(conn)
                with signals.disturbed(before):
                    if self._hung_up(conn):  # before anybody was told of it
                        raise Interrupted
                    answer = skel.handle(
                        call.plugin,
                        call.env,
                        lambda: entry.read(fds[0]),
                        lambda settings, env: Runner(settings, env, self._shell),
                    )
            except Interrupted:
                answer = answer or skel.interrupted()  # one that was there already stands: it tells what has been done
            finally:
                signals.enough()
                os.dup2(ours, 2)
                os.close(ours)
        return entry.tell(answer, fds[1], fds[2])

    @staticmethod
    def _hung_up(conn: socket.socket) -> bool:
        asked = select.poll()
        asked.register(conn, select.POLLRDHUP)
        return bool(asked.poll(0))


def _place(pid: int | str) -> list[os.stat_result]:
    """What a process's paths and links are those of."""
    return [os.stat(f"/proc/{pid}/{what}") for what in ("ns/net", "ns/mnt", "root")]


def _tell_of(conn: socket.socket) -> None:
    """Has the kernel send SIGIO when something happens to a connection (fcntl(2), O_ASYNC)."""
    fcntl.fcntl(conn, _F_SETSIG, signal.SIGIO)
    fcntl.fcntl(conn, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(conn, fcntl.F_SETFL, fcntl.fcntl(conn, fcntl.F_GETFL) | os.O_ASYNC)


def main(worker: Worker) -> NoReturn:
    """A forked process's whole life."""
    status = 1
    with contextlib.suppress(BaseException):
        worker.run()
        status = 0
    os._exit(status)
