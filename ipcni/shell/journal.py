"""The journal: one JSON line for every operation, so that the question "what did it do?" has an answer afterwards.

docs/journal.md has the schema. Appending is one write(2) to a file opened for appending, which processes can do side by side; a
file that has grown too large is renamed. Nothing here may fail an operation: a full or read-only disk costs the line.
"""

import contextlib
import fcntl
import itertools
import json
import os
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from ipcni import __version__
from ipcni.errors import CniError
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.settings import Settings

SCHEMA = 1
FILE = "journal.jsonl"


class Record:
    """One operation from its begin to its end."""

    def __init__(self, req: Request, host: Host) -> None:
        self._host = host
        self._began = time.monotonic()
        self._line: dict[str, Any] = {
            "schema": SCHEMA,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ipcni": __version__,
            "pid": os.getpid(),
            "verb": req.verb,
            "plugin": req.plugin,
            "network": req.network,
            "containerId": req.container_id,
            "ifname": req.ifname,
            "netns": req.netns_path,
            "pod": _pod(req.args),
            "stdin": req.stdin.decode("utf-8", "replace"),
        }

    def trace(self, error: Exception) -> None:
        """Keeps where a defect showed itself."""
        self._line["traceback"] = "".join(traceback.format_exception(error))

    def end(self, body: dict[str, Any], failure: CniError | None) -> None:
        """Writes the record."""
        self._line["ms"] = round((time.monotonic() - self._began) * 1000, 2)
        self._line["commands"] = getattr(self._host, "log", [])
        if failure:
            self._line["error"] = failure.json()
        elif body:
            self._line["result"] = body
        with contextlib.suppress(OSError, ValueError):
            append(self._host.settings, self._line)


def _pod(args: str) -> str:
    pairs = dict(pair.split("=", 1) for pair in args.split(";") if "=" in pair)
    names = (pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", ""))
    return "/".join(filter(None, names))


def append(settings: Settings, line: dict[str, Any]) -> None:
    """Adds one line. Raises OSError when it can't."""
    path = os.path.join(settings.log_dir, FILE)
    os.makedirs(settings.log_dir, mode=0o750, exist_ok=True)
    data = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "replace")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if os.fstat(fd).st_size + len(data) > settings.log_size:
            _rotate(path, fd, settings)
            os.close(fd)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.write(fd, data)
    finally:
        os.close(fd)


def _rotate(path: str, fd: int, settings: Settings) -> None:
    """journal.jsonl becomes journal.jsonl.1, and so on; the oldest goes. Of several processes one does it."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not os.path.exists(path) or not os.path.samestat(os.stat(path), os.fstat(fd)):
            return  # another process has just done it
        names = [path, *(f"{path}.{number}" for number in range(1, settings.log_files))]
        for newer, older in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
    finally:
        os.close(folder)
