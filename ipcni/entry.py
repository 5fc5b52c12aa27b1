"""A plugin as a process: the only module that touches argv, the environment, stdin, stdout and signals."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ipcni.protocol.host import Host
    from ipcni.settings import Settings


def main(argv0: str) -> NoReturn:
    """Serves one CNI call as the plugin named like the executable, and ends the process."""
    from ipcni.errors import Interrupted
    from ipcni.protocol import skel

    def stop(_number: int, _frame: object) -> NoReturn:
        for number in (signal.SIGTERM, signal.SIGINT):  # once is enough: what follows is the undoing
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    answer = skel.handle(os.path.basename(argv0), dict(os.environ), _stdin, _runner)
    sys.stderr.write(answer.stderr)
    sys.stderr.flush()
    _write(answer.stdout)
    os._exit(answer.status)  # nothing is left to tidy up, and tidying takes milliseconds


def _runner(settings: "Settings", env: Mapping[str, str]) -> "Host":
    from ipcni.shell.run import Runner  # not for VERSION, nor for a request that is refused at once

    return Runner(settings, env)


def _stdin() -> bytes:
    with open(0, "rb", closefd=False) as stdin:
        return stdin.read()


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
