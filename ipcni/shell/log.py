"""What one request has done, as the journal keeps it: docs/journal.md, `commands`."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from ipcni.errors import CniError
from ipcni.model import Done, Step

Entry = dict[str, object]


class Log:
    """`entries` in the order in which things ended; `plugin` is for whom they are done, `undoing` that they take something back."""

    def __init__(self, entries: list[Entry] | None = None, plugin: str = "") -> None:
        self.entries: list[Entry] = [] if entries is None else entries
        self.plugin = plugin
        self.undoing = False

    def command(
        self,
        argv: tuple[str, ...],
        stdin: str,
        done: Done,
        steps: Sequence[Step] = (),
        *,
        look: bool = False,
        direct: bool = False,
    ) -> None:
        """A process that ran, or (`direct`) the one that would have done what system calls did."""
        entry: Entry = {"plugin": self.plugin, "argv": argv, "status": done.status, "ms": done.ms}
        if stdin:
            entry["stdin"] = stdin
        if done.err.strip():
            entry["stderr"] = done.err.strip()
        if look:
            entry["look"] = True
        if direct:
            entry["direct"] = True
        if self.undoing:
            entry["undo"] = True
        if len(steps) == 1:
            entry["sh"] = steps[0].command
        self.entries.append(entry)

    def remark(self, text: str, **more: object) -> None:
        self.entries.append({"plugin": self.plugin, "note": text, **more})

    @contextlib.contextmanager
    def talk(self, words: tuple[str, ...]) -> Iterator[None]:
        """A talk with a daemon, which the body is. It stands where it began, for it may be that it never ends."""
        started = time.monotonic()
        entry: Entry = {"plugin": self.plugin, "argv": words, "status": 1}
        if self.undoing:
            entry["undo"] = True
        self.entries.append(entry)
        try:
            yield
            entry["status"] = 0
        except CniError as error:
            entry["stderr"] = error.msg
            raise
        finally:
            entry["ms"] = round((time.monotonic() - started) * 1000, 2)
