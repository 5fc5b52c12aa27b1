"""Locks between processes: flock(2) on a file. The only module that knows filelock.

The descriptor is handed to the commands a locked section starts. A plugin that is killed therefore keeps its lock until
the command it had started has ended too, and the DEL that follows does not race with it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import filelock

from ipcni.errors import IO_FAILURE, TRY_AGAIN, CniError, Interrupted
from ipcni.shell import files
from ipcni.shell.signals import disturbed, undisturbed

_PAUSE = 0.005


@contextlib.contextmanager
def locked(
    path: str,
    timeout: float,
    *,
    mode: int = 0o600,
    keep: bool = False,
    hint: str = "",
    hurried: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Holds the exclusive lock on `path`, waiting `timeout` seconds at most; yields its descriptor.

    The file is made with its folder; `hint` is what an error says about moving that. It is removed at the end, unless `keep` says that others rely on it. Raises CniError
    11 when the lock stays taken, 5 when the file cannot be made; Interrupted once all is to end, which `hurried` tells a thread without signals.
    """
    deadline = time.monotonic() + timeout
    fd: int | None = None
    with undisturbed() as before:  # a file that is made and not locked yet would be nobody's to remove
        try:
            while True:
                try:
                    files.make_folders(os.path.dirname(path))
                    fd = _taken(path, mode)
                except OSError as error:
                    raise CniError(
                        f"cannot make the lock file {path}: {error.strerror}",
                        IO_FAILURE,
                        f"{os.path.dirname(path)} must be a folder root can write to{hint}",
                    ) from error
                if fd is not None:
                    break
                if hurried():
                    raise Interrupted
                if time.monotonic() >= deadline:
                    raise CniError(
                        f"{path} stayed locked for {timeout:g} s",
                        TRY_AGAIN,
                        f"another plugin call holds it; `fuser -v {path}` names it",
                    )
                with disturbed(before):
                    time.sleep(_PAUSE)
            with disturbed(before):
                yield fd
        finally:
            if fd is not None:
                if not keep:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                filelock.unlock_descriptor(fd)  # a shell of ours may have it, too
                os.close(fd)


def _taken(path: str, mode: int) -> int | None:
    """The descriptor of the locked file, or None while another one has it."""
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDONLY, mode)
        os.set_inheritable(fd, True)
        if not filelock.lock_descriptor(fd, blocking=False):
            os.close(fd)
            return None
        if _same_file(fd, path):
            return fd
        os.close(fd)  # its last holder removed it meanwhile


def _same_file(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
