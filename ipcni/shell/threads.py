"""A second thread, for as long as one block of the first one lasts."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from ipcni.errors import Interrupted
from ipcni.shell.signals import disturbed, undisturbed


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Calls `act` in a thread while the body runs, and waits for it. What the body raises is raised, else what `act` does."""
    problems: list[BaseException] = []

    def work() -> None:
        try:
            act()
        except (Exception, Interrupted) as problem:  # noqa: BLE001  # raised below
            problems.append(problem)

    thread = threading.Thread(target=work)
    with undisturbed() as before:  # Python 3.11 takes a thread for ended when a signal cuts join() short
        thread.start()
        try:
            with disturbed(before):
                yield
        finally:
            thread.join()
    if problems:
        raise problems[0]
