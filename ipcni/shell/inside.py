"""Work in a pod's namespace without starting a program: a thread goes there, for namespaces are threads' (setns(2), decision 0007)."""

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

from ipcni.model import Netns
from ipcni.shell.threads import meanwhile

_CLONE_NEWNET = 0x40000000
_setns = ctypes.CDLL(None, use_errno=True).setns
T = TypeVar("T")


def inside(netns: Netns, act: Callable[[], T]) -> T:
    """What `act` returns there; /proc/sys/net is the namespace's then. Raises OSError, of `act` too, and where there is no such namespace."""
    found: list[T] = []

    def work() -> None:
        fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _setns(fd, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), netns.path)
        finally:
            os.close(fd)
        found.append(act())

    with meanwhile(work):
        pass
    return found[0]
