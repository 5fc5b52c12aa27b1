"""A plugin as a process: the only module that touches argv, the environment, stdin, stdout and signals."""

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ipcni.protocol.host import Host
    from ipcni.protocol.skel import Answer
    from ipcni.settings import Settings


_LONGEST = 16 << 20  # bytes of stdin


def main(argv0: str) -> NoReturn:
    """Serves one CNI call as the plugin named like the executable, and ends the process."""
    _fill_gaps()
    gc.disable()  # a call is over before it would be worth anything
    from ipcni.errors import Interrupted
    from ipcni.protocol import skel
    from ipcni.shell import signals

    def stop(_number: int, _frame: object) -> NoReturn:
        signals.enough()
        raise Interrupted

    signals.insist(stop)
    answer = None
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        if os.path.basename(argv0) == "dhcp" and sys.argv[1:2] == ["daemon"]:
            from ipcni.dhcp import command

            gc.enable()
            os._exit(command.main(sys.argv[2:], _environ(), lambda text: _write(2, f"{text}\n".encode("utf-8", "replace"))))
        answer = skel.handle(os.path.basename(argv0), _environ(), lambda: read(0), _runner)
        signals.enough()
    except Interrupted:
        answer = answer or skel.interrupted()  # one that was there already stands: it tells what has been done
    status = tell(answer, 1, 2)
    os._exit(status)  # nothing is left to tidy up, and tidying takes milliseconds


def _fill_gaps() -> None:
    """Standard descriptors that the caller left closed lead to /dev/null, lest a file of ours gets such a number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stderr  # whatever prints, prints elsewhere than on the protocol's channel


def _runner(settings: "Settings", env: Mapping[str, str]) -> "Host":
    from ipcni.shell.run import Runner  # not for VERSION, nor for a request that is refused at once

    return Runner(settings, env)


def _environ() -> dict[str, str]:
    """The environment as the caller made it: in os.environ Python may have put an LC_CTYPE of its own (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0")]
    except OSError:
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if equals}


def read(fd: int) -> bytes:
    """All that a descriptor has. Raises OSError, also where that is more than any runtime's: memory would be the node's limit."""
    parts, left = [], _LONGEST
    while part := os.read(fd, 1 << 16):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(parts)


def tell(answer: "Answer", out: int, err: int) -> int:
    """Writes the answer to its descriptors; the status to end with."""
    with contextlib.suppress(OSError):
        _write(err, answer.stderr.encode())
    try:
        _write(out, answer.stdout)
    except OSError:
        return 1  # who cannot be told must at least not be told that all is well
    return answer.status


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
