"""A second thread, for as long as one block of the first one lasts."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from ipcni.errors import Interrupted
from ipcni.shell.signals import disturbed, undisturbed


@contextlib.contextmanager
def meanwhile(act: Callable[[], object], hurry: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Calls `act` in a thread while the body runs, and waits for it. What the body raises is raised, else what `act` does.

    `hurry` is called where a signal says that all is to end.
    """
    problems: list[BaseException] = []
    running = threading.Lock()  # and not an Event: a signal that cuts its wait() short may keep it locked
    running.acquire()

    def work() -> None:
        try:
            act()
        except (Exception, Interrupted) as problem:  # noqa: BLE001  # raised below
            problems.append(problem)
        finally:
            running.release()

    thread = threading.Thread(target=work)
    with undisturbed() as before:
        thread.start()
        try:
            with disturbed(before):
                yield
                running.acquire()  # and not join(): Python 3.11 takes a thread for ended when a signal cuts that short
        except Interrupted:
            hurry()
            raise
        finally:
            thread.join()
    if problems:
        raise problems[0]
