"""Reading the journal: which records, and how they are told. docs/journal.md has the schema."""

import json
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from ipcni.errors import CniError
from ipcni.settings import Settings
from ipcni.shell.journal import FILE

Line = dict[str, Any]

_PAUSE = 0.1
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def span(text: str) -> float:
    """A length of time (`500ms`, `90s`, `10m`, `2h`, `1d`) in seconds. Raises CniError for something else."""
    if not (match := _SPAN.fullmatch(text)):
        raise CniError(f"{text!r} is no length of time", details="write 500ms, 90s, 10m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str, now: datetime) -> datetime:
    """A point in time: so long ago (`2h`), or a date and time in ISO 8601 (without a zone: UTC). Raises CniError."""
    if _SPAN.fullmatch(text):
        return now - timedelta(seconds=span(text))
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise CniError(f"{text!r} is no point in time", details="write 2h, or 2026-01-31T12:00") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def files(settings: Settings) -> list[str]:
    """The journal's files, oldest first."""
    path = os.path.join(settings.log_dir, FILE)
    numbered = [f"{path}.{number}" for number in range(settings.log_files - 1, 0, -1)]
    return [name for name in [*numbered, path] if os.path.exists(name)]


def lines(settings: Settings) -> Iterator[Line]:
    """All records, oldest first; a line that was cut short is left out. Raises CniError when a file cannot be read."""
    for path in files(settings):
        with _open(path) as file:
            yield from filter(None, map(_record, file))


def follow(settings: Settings) -> Iterator[Line]:
    """All records and those that come, for ever; goes on behind a rotation. Raises CniError when a file cannot be read."""
    path = os.path.join(settings.log_dir, FILE)
    for older in files(settings):
        if older != path:
            with _open(older) as file:
                yield from filter(None, map(_record, file))
    while True:
        while not os.path.exists(path):
            time.sleep(_PAUSE)
        rest = ""
        with _open(path) as file:
            while True:
                rotated = _inode(path) != os.fstat(file.fileno()).st_ino
                *whole, rest = (rest + file.read()).split("\n")
                yield from filter(None, map(_record, whole))
                if rotated:
                    break
                time.sleep(_PAUSE)


def _open(path: str) -> TextIO:
    try:
        return open(path, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CniError(f"cannot read {path}: {error.strerror}", details="the journal is root's") from error


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _record(line: str) -> Line | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def matches(
    record: Line,
    *,
    container_id: str = "",
    pod: str = "",
    network: str = "",
    since: datetime | None = None,
    failed: bool = False,
    slow: float = 0,
) -> bool:
    """Whether a record is one of those asked for; an id may be given by its beginning, a pod by `namespace/name` or its name."""
    return (
        record.get("containerId", "").startswith(container_id)
        and (not pod or pod in (record.get("pod"), str(record.get("pod")).rpartition("/")[2]))
        and network in ("", record.get("network"))
        and (since is None or datetime.fromisoformat(record["time"]) >= since)
        and (not failed or "error" in record)
        and record.get("ms", 0) >= slow * 1000
    )


def text(record: Line) -> str:
    """A record for people: a line on the operation, one on each command that ran, and the error."""
    outcome = "failed" if "error" in record else "ok"
    who = record.get("pod") or record.get("containerId", "")
    told = [
        f"{record['time']} {record['verb']} {record['network']} {who} {record['ifname']} {record['ms']:.0f} ms {outcome} ({record['plugin']})"
    ]
    for command in record.get("commands", ()):
        told += _command(command)
    if error := record.get("error"):
        told.append(f"  ! {error['msg']}" + (f" ({error['code']})"))
        if error.get("details"):
            told.append(f"    {error['details']}")
    return "\n".join(told) + "\n"


def _command(command: Line) -> list[str]:
    if note := command.get("note"):
        return [f"  ! {note}"]
    sign = "?" if command.get("look") else "-" if command.get("undo") else "+"
    failed = f", status {command['status']}" if command["status"] and not command.get("look") else ""
    told = [f"  {sign} {_line(command)}   {command['ms']:.1f} ms{failed}"]
    told += [f"      {line}" for line in command.get("stdin", "").splitlines()]
    if failed:
        told += [f"      {line}" for line in command.get("stderr", "").splitlines()]
    return told


def _line(command: Line) -> str:
    return str(command.get("sh") or shlex.join(command["argv"]))


def script(records: Iterable[Line]) -> Iterator[str]:
    """A shell script of what ran: changes as commands, looks as comments."""
    yield "#!/bin/sh\n"
    for record in records:
        yield (
            f"\n# {record['time']} {record['verb']} {record['network']} {record['containerId']} {record['ifname']}"
            f" {record['netns']} ({record['plugin']}, {record['ms']:.0f} ms)\n"
        )
        for command in record.get("commands", ()):
            yield from _shell(command)
        if error := record.get("error"):
            yield f"# failed: {json.dumps(error['msg'], ensure_ascii=False)}\n"


def _shell(command: Line) -> Iterator[str]:
    if note := command.get("note"):
        yield f"# {note}\n"
        return
    if command.get("look"):
        yield f"# looked: {_line(command)}\n"
        return
    status = f"   # ended with {command['status']}" if command["status"] else ""
    if stdin := command.get("stdin"):
        yield f"{_line_of(command)} <<'EOF'{status}\n{stdin.rstrip()}\nEOF\n"
    else:
        yield f"{_line(command)}{status}\n"


def _line_of(command: Line) -> str:
    return shlex.join(command["argv"])
