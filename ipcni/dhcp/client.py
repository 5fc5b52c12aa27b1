"""The DHCP client that keeps one lease: udhcpc (Debian's udhcpc, or busybox), in the pod's namespace."""

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable

import msgspec

from ipcni.dhcp.lease import Lease
from ipcni.shell.process import Child

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
TOOLS = ("ip", "nsenter", "setpriv")
_ROUND = 3  # DISCOVERs
_WAIT, _PAUSE = 3, 4  # seconds for an answer to one, and between rounds
_CLIENT_ID_OFF, _NO_VENDOR = "-C", ("-V", "")


class Options(msgspec.Struct, frozen=True):
    """What the daemon was told about asking: seconds, and whether answers are to be broadcast."""

    timeout: float = 10
    resend_max: float = 62
    resend_timeout: float = 208
    broadcast: bool = False


def words(udhcpc: tuple[str, ...], lease: Lease, options: Options) -> tuple[str, ...]:
    """The command, from the node."""
    wait = min(_WAIT, max(1, math.ceil(options.timeout)))
    pause = min(_PAUSE, max(1, math.ceil(options.resend_max)))
    found = ["nsenter", f"--net={lease.netns}", *udhcpc, "-f", "-i", lease.ifname, "-s", HOOK]
    found += ["-t", str(_ROUND), "-T", str(wait), "-A", str(pause), _CLIENT_ID_OFF, *_NO_VENDOR, "-o"]
    for number in lease.asked:
        found += ["-O", str(number)]
    for number, digits in sorted(lease.sent.items()):
        found += ["-x", f"0x{number:02x}:{digits}"]
    if options.broadcast:
        found.append("-B")
    if lease.terms:
        found += ["-r", lease.terms.address.partition("/")[0]]
    return tuple(found)


class Client:
    """A running udhcpc. `ended` is called with its last words when it ends, whatever the reason."""

    def __init__(self, argv: tuple[str, ...], number: int, path: str, out: int, ended: Callable[[str], None]) -> None:
        self.number = number
        self.bound = threading.Event()  # it has said that it has its lease
        self.quiet = threading.Event()  # it has said that it has none any more
        env = {"PATH": path, "LC_ALL": "C", "IPCNI_CLIENT": str(number)}
        self._child = Child(argv, env, out, ended)

    def renew(self) -> None:
        self._child.signal(signal.SIGUSR1)

    def release(self, seconds: float) -> None:
        """Tells the server, and stops. It can only give back what it has: one that was started a moment ago is waited for."""
        self.bound.wait(seconds)
        self.quiet.clear()
        self._child.signal(signal.SIGUSR2)
        self.quiet.wait(seconds)
        self.stop()

    def stop(self) -> None:
        """Stops without a word to the server."""
        self._child.stop()


def udhcpc(has: Callable[[str], bool]) -> tuple[str, ...]:
    """The words that start the client; none where there is no client."""
    with contextlib.suppress(StopIteration):
        return next(words for words in (("udhcpc",), ("busybox", "udhcpc")) if has(words[0]))
    return ()
