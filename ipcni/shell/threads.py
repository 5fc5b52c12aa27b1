"""A second thread, for as long as one block of the first one lasts."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from ipcni.errors import Interrupted
from ipcni.shell.signals import TOLD_TO_STOP, undisturbed


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Calls `act` in a thread while the body runs, and waits for it. What the body raises is raised, else what `act` does."""
    problems: list[BaseException] = []

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_TO_STOP)  # the programs that a thread starts inherit what it blocks
        try:
            act()
        except (Exception, Interrupted) as problem:  # noqa: BLE001  # raised below
            problems.append(problem)

    thread = threading.Thread(target=work)
    try:
        with undisturbed():
            thread.start()
        yield
    finally:
        try:
            if thread.ident is not None:
                thread.join()
        except Interrupted:  # the only one: no more signals are taken
            thread.join()
            raise
    if problems:
        raise problems[0]
