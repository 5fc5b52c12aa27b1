"""Work in a pod's namespace without starting a program: this thread, and no other, goes there and comes back (setns(2), decision 0007)."""

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ipcni.model import Netns
from ipcni.shell.signals import undisturbed

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def inside(netns: Netns, act: Callable[[], T]) -> T:
    """What `act` returns there; /proc/sys/net is the namespace's then. Raises OSError, of `act` too, and where there is no such namespace.

    `act` starts no program. Signals wait until we are back.
    """
    with undisturbed(), _opened("/proc/thread-self/ns/net") as here, _opened(netns.path) as there:
        _enter(there, netns.path)
        try:
            return act()
        finally:
            try:
                _enter(here, "/proc/thread-self/ns/net")
            except OSError:  # whatever came next would be done to the pod
                os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(fd: int, path: str) -> None:
    import ctypes  # 4 ms, and not every call is for a pod

    if _library().setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


@functools.cache
def _library() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
