"""What a bandwidth configuration asks for, and the numbers of tc that it comes to (meta sheet 4.1, 4.2, 4.4)."""

from typing import Annotated

import msgspec

from ipcni.errors import CniError
from ipcni.protocol.request import Request
from ipcni.shell.facts import read
from ipcni.shell.iproute import Shape

Bits = Annotated[int, msgspec.Meta(ge=0)]
_KEYS = ("ingressrate", "ingressburst", "egressrate", "egressburst")
_LATENCY = 25000  # microseconds
_UINT32 = (1 << 32) - 1
_TOLERANCE = 16  # ticks: tc rounds elsewhere than the reference


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """Bits a second, and bits at once, in either direction; 0 is no limit."""

    ingress_rate: Bits = 0
    ingress_burst: Bits = 0
    egress_rate: Bits = 0
    egress_burst: Bits = 0


class _Runtime(msgspec.Struct, frozen=True):
    bandwidth: Entry = Entry()


class _Conf(Entry, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/bandwidth.md says what they do."""

    runtime_config: _Runtime = _Runtime()


class Limit(msgspec.Struct, frozen=True):
    """A limit in tc's units: bytes a second, bytes at once, bytes that may wait."""

    rate: int
    burst: int

    @property
    def limit(self) -> int:
        """What passes in 25 ms and a burst; the kernel keeps 32 bits of it."""
        return (self.rate * _LATENCY // 1_000_000 + self.burst) & _UINT32

    @property
    def ticks(self) -> int:
        """The burst as the time it takes, in the kernel's ticks (/proc/net/psched)."""
        words = [int(word, 16) for word in (read("/proc/net/psched") or "3e8 40 f4240 3b9aca00").split()]
        numerator = words[1] if words[2] == 1_000_000_000 else words[0]
        a_microsecond = numerator / words[1] * words[2] / 1_000_000
        return int(self.burst * 1_000_000 // self.rate * a_microsecond) & _UINT32

    def differs(self, there: Shape) -> str:
        """What of a tbf is not as wanted, or nothing."""
        if there.rate != self.rate:
            return "Rate"
        if there.limit != self.limit:
            return "Limit"
        apart = abs(int(there.burst_raw or "0", 16) - self.ticks)
        return "Buffer" if _TOLERANCE < apart < _UINT32 - _TOLERANCE else ""


def load(req: Request) -> tuple[Limit | None, Limit | None]:
    """The limits towards the pod and from it. One key beside `type` is enough for `runtimeConfig` not to count.

    Raises CniError for what is no number, or half a limit.
    """
    conf = req.config(_Conf, prefix="failed to parse network configuration")
    entry: Entry = conf if any(key.lower() in _KEYS for key in req.conf) else conf.runtime_config.bandwidth
    return (
        _limit("ingress", entry.ingress_rate, entry.ingress_burst),
        _limit("egress", entry.egress_rate, entry.egress_burst),
    )


def _limit(way: str, rate: int, burst: int) -> Limit | None:
    keys = f"`{way}Rate` and `{way}Burst`, in bits"
    if rate and not burst:
        raise CniError("if rate is set, burst must also be set", details=keys)
    if burst and not rate:
        raise CniError("if burst is set, rate must also be set", details=keys)
    if burst // 8 >= _UINT32:
        raise CniError("burst cannot be more than 4GB", details=keys)
    if not rate:
        return None
    if rate < 8 or burst < 8:
        raise CniError("create qdisc: invalid argument", details=f"{keys}: tc counts whole bytes, of 8 bits")
    return Limit(rate // 8, burst // 8)
