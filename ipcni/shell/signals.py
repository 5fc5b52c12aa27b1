"""When a signal may stop us, and when it has to wait; and how others are stopped."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ipcni.errors import Interrupted
from ipcni.shell import files

TOLD_TO_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGIO}  # of a process of its own; of a server's worker
Mask = set[int]


@contextlib.contextmanager
def undisturbed() -> Iterator[Mask]:
    """Signals wait until the end of the body: what it does is done whole, or nobody would know how to undo it.

    Yields what `disturbed` needs for the parts of the body that may be given up.
    """
    before: Mask = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_TO_STOP)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def disturbed(before: Mask) -> Iterator[None]:
    """Signals come as they did before the `undisturbed` around it. Behind it none will: they wait again, or the one there is has come."""
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_TO_STOP)


def heed() -> None:
    """In a program that is about to start: signals do what they usually do, whatever we do with ours."""
    for number in (*TOLD_TO_STOP, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_TO_STOP)


def enough() -> None:
    """Takes no more signals: what follows an interruption is the undoing, and what follows an answer nobody is to cut off."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in TOLD_TO_STOP:
        signal.signal(number, signal.SIG_IGN)


def insist(stop: Callable[[int, FrameType | None], None]) -> None:
    """Has the handler `stop` called once more should it raise Interrupted during a callback, out of which nothing can be raised."""

    def swallowed(what: "sys.UnraisableHookArgs") -> None:
        if isinstance(what.exc_value, Interrupted):
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = swallowed


def end_group(group: int, number: int, grace: float) -> None:
    """Ends a process group with the signal `number`, and what is left of it after `grace` seconds for good."""
    deadline = time.monotonic() + grace
    with contextlib.suppress(OSError):
        os.killpg(group, number)
        while _lives(group):
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
                break
            time.sleep(0.005)


def _lives(group: int) -> bool:
    """Whether somebody is left. A zombie is nobody: whoever has to bury it may take long."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, of = files.content(f"/proc/{name}/stat").rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
            if int(of) == group and state not in b"ZX":
                return True
    return False
