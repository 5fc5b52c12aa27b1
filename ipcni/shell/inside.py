"""Work in a pod's namespace without starting a program: a thread goes there, for namespaces are threads' (setns(2), decision 0007)."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from ipcni.model import Netns
from ipcni.shell.threads import meanwhile

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def inside(netns: Netns, act: Callable[[], T]) -> T:
    """What `act` returns there; /proc/sys/net is the namespace's then. Raises OSError, of `act` too, and where there is no such namespace."""
    found: list[T] = []

    def work() -> None:
        fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(fd, netns.path)
        finally:
            os.close(fd)
        found.append(act())

    with meanwhile(work):
        pass
    return found[0]


def _enter(fd: int, path: str) -> None:
    import ctypes  # 4 ms, and not every call is for a pod

    if _library().setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


@functools.cache
def _library() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
