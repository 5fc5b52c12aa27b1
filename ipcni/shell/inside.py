"""Work in a pod's namespace without starting a program: a thread goes there, for namespaces are threads' (setns(2))."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from ipcni.model import Netns

_CLONE_NEWNET = 0x40000000
_setns = ctypes.CDLL(None, use_errno=True).setns
T = TypeVar("T")


def inside(netns: Netns, act: Callable[[], T]) -> T:
    """What `act` returns there; /proc/sys/net is the namespace's then. Raises OSError, of `act` too, and where there is no such namespace."""
    found: list[T] = []
    problems: list[OSError] = []

    def work() -> None:
        try:
            fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _setns(fd, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), netns.path)
            finally:
                os.close(fd)
            found.append(act())
        except OSError as problem:
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]
