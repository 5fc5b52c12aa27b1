"""A program that was started before it is known what it shall read: its start then takes nobody's time."""

import contextlib
import errno
import fcntl
import os
import select
import shlex
import shutil
import struct
import termios

from ipcni.model import line

Words = tuple[str, ...]


class Waiting:
    """`argv`, with its input still to come at the other end of a pipe. Where that closes instead, it ends and has done nothing.

    A shell starts it, and opens our descriptors for it: they may be closed once the shell has done that, or has ended.
    """

    def __init__(self, argv: Words, path: str, number: int) -> None:
        """`number` tells it from the others of its shell. Raises OSError where there are no more descriptors."""
        self.argv, self._path, self._name = argv, path, f"p{number}"
        self._program = _program(argv[0], path)
        self._fds: list[int] = []
        self.said = ("", "")  # before it was killed
        try:
            self._fds += os.pipe()
            for stream in ("stdout", "stderr"):
                self._fds.append(os.memfd_create(stream))
        except OSError:
            self.close()
            raise

    def start(self, taken: set[int]) -> str:
        """The lines of shell that start it. `taken` are descriptors of the shell's. Raises OSError where it has no free ones."""
        free = [number for number in range(4, 10) if number not in taken]  # a shell knows those of one digit
        if len(free) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        read, out, err = free[:3]
        there = [f"/proc/{os.getpid()}/fd/{fd}" for fd in self._fds]
        opened, closed = f"{read}<{there[0]} {out}>{there[2]} {err}>{there[3]}", f"{read}<&- {out}>&- {err}>&-"
        return f"exec {opened}\nPATH={shlex.quote(self._path)} {line(self.argv)} <&{read} >&{out} 2>&{err} 3>&- {closed} &\n{self._name}=$!\nexec {closed}\n"

    @property
    def wait(self) -> str:
        """The command of shell that ends when it does, and as it does."""
        return f"wait ${self._name}"

    def fits(self, argv: Words, path: str, data: bytes = b"") -> bool:
        """Whether it is what would be started now, for that input: the same file, too, whatever was installed meanwhile."""
        return argv == self.argv and len(data) <= select.PIPE_BUF and self._program == _program(argv[0], path)

    def feed(self, data: bytes) -> None:
        """Gives it all it is to read: PIPE_BUF at most, which come whole or not at all (pipe(7))."""
        os.write(self._fds[1], data)
        fd, self._fds[1] = self._fds[1], -1  # in this order: an interruption must not have it closed twice
        os.close(fd)

    def untouched(self, data: bytes) -> bool:
        """Whether it ended without having read any of that."""
        (left,) = struct.unpack("i", fcntl.ioctl(self._fds[0], termios.FIONREAD, bytes(4)))
        return bool(left == len(data))

    @property
    def streams(self) -> tuple[int, int]:
        """Files of what it printed: stdout and stderr."""
        return self._fds[2], self._fds[3]

    def close(self) -> None:
        """Has it end, should it still wait."""
        for fd in self._fds:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fds = []


def _program(name: str, path: str) -> tuple[int, ...]:
    """What tells one program from another one of its name; nothing where there is none."""
    try:
        there = os.stat(shutil.which(name, path=path) or name)
    except OSError:
        return ()
    return there.st_dev, there.st_ino, there.st_mtime_ns
