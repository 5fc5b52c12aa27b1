"""When a signal may stop us, and when it has to wait."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from ipcni.errors import Interrupted

TOLD_TO_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGIO}  # of a process of its own; of a server's worker


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the end of the body: what it does is done whole, or nobody would know how to undo it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_TO_STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def surely(act: Callable[[], object]) -> None:
    """Has `act` done though a signal may come at any moment, just before it even: it may be called twice, and must bear that."""
    try:
        with undisturbed():
            act()
    except Interrupted:  # the only one: no more signals are taken
        act()
        raise


def heed() -> None:
    """Takes signals, as programs expect it that are started while ours wait."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_TO_STOP)
