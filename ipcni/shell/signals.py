"""When a signal may stop us, and when it has to wait."""

import contextlib
import signal
from collections.abc import Iterator

TOLD_TO_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGIO}  # of a process of its own; of a server's worker


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until the end of the body: what it does is done whole, or nobody would know how to undo it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_TO_STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
