"""The small program that stands for each plugin on a node, and asks `ipcni serve` first (client.c)."""

import os
import tempfile
from importlib import resources

from ipcni.protocol import delegate
from ipcni.shell.process import STANDARD_PATH
from ipcni.shell.shell import Shell

_SECONDS = 60


def client() -> bytes | None:
    """The program: as the package's build made it, or made now. None where there is neither that nor a compiler."""
    folder = resources.files("ipcni") / "native"
    built = folder / "client"
    program = built.read_bytes() if built.is_file() else _compiled(str(folder / "client.c"))
    return program + b"\n" + delegate.MARK if program else None


def _compiled(source: str) -> bytes | None:
    """Static where the C library allows it: such a program starts in half the time."""
    path = ":".join(STANDARD_PATH)
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "client")
        for options in (("-static",), ()):
            if Shell().run(("cc", "-O2", "-s", *options, "-o", program, source), "", path, _SECONDS, set()).status == 0:
                with open(program, "rb") as file:
                    return file.read()
    return None
