"""Leases: what the DHCP client reports, what a plugin is answered, and the file that outlives the daemon."""

import contextlib
import os
import re
import time
from collections.abc import Iterator

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import address as addresses
from ipcni.protocol.result import IpConfig, Result, Route

HOUR = 3600
_FOREVER = 0xFFFFFFFF  # RFC 2131, 3.3
_LINK = 253  # RT_SCOPE_LINK
_FIELDS = 9
_NO_MASK = "DHCP option Subnet Mask not found in DHCPACK"
_NUMBER = re.compile("[0-9]{1,10}")
_HEX = re.compile("[0-9a-f]{8}")


def now() -> float:
    """Seconds since the machine started, asleep or not: no clock that is set moves a lease's end."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Report(msgspec.Struct, frozen=True):
    """A line of the hook: which client says that what happened, and the variables udhcpc(8) has for it."""

    client: int
    event: str
    ip: str
    mask: str
    router: str
    seconds: str
    renew: str
    classless: str
    static: str


def report(line: str) -> Report | None:
    """The report in a line of a client's output; None for another line."""
    words = line.rstrip("\n").split("\t")[:_FIELDS]
    if len(words) != _FIELDS or not _NUMBER.fullmatch(words[0]):
        return None
    return Report(int(words[0]), *words[1:])


class Terms(msgspec.Struct, frozen=True):
    """What a server gave: `address` with its prefix length, classless routes as (destination, router), static ones as (destination,
    router) without a length. `renew` and `end` are moments of `now`; 0 is never."""

    address: str
    router: str = ""
    classless: tuple[tuple[str, str], ...] = ()
    static: tuple[tuple[str, str], ...] = ()
    renew: float = 0
    end: float = 0


def terms(said: Report) -> Terms:
    """A lease as reported. Raises CniError for one without a subnet mask, or that makes no sense."""
    if not _NUMBER.fullmatch(said.mask):
        raise CniError(_NO_MASK)
    seconds = int(said.seconds) if _NUMBER.fullmatch(said.seconds) else HOUR
    renew = int(said.renew, 16) if _HEX.fullmatch(said.renew) else 0
    began = now()
    pairs = said.classless.split()
    try:
        return Terms(
            address=addresses.cidr(f"{said.ip}/{said.mask}").with_prefixlen,
            router=str(addresses.ip(said.router.split()[0])) if said.router else "",
            classless=tuple(
                (addresses.cidr(dst).with_prefixlen, str(addresses.ip(gw))) for dst, gw in zip(*[iter(pairs)] * 2, strict=True)
            ),
            static=tuple(_static(pair) for pair in said.static.split()),
            renew=began + renew if 0 < renew < seconds else 0,
            end=0 if seconds == _FOREVER else began + seconds,
        )
    except ValueError as error:
        raise CniError(f"the DHCP server's answer makes no sense: {error}") from error


def _static(pair: str) -> tuple[str, str]:
    destination, _, router = pair.partition("/")
    return str(addresses.ip(destination)), str(addresses.ip(router))


def result(given: Terms, priority: int) -> Result:
    """What a plugin is answered (IPAM sheet 4.4)."""
    ip = IpConfig(address=given.address, gateway=given.router)
    if given.classless:
        routes = [Route(dst=dst, gw=gw, scope=_LINK if gw == "0.0.0.0" else None) for dst, gw in given.classless]
    else:
        routes = [Route(dst=f"{dst}/{_classful(dst)}", gw=gw) for dst, gw in given.static]
        if given.router:
            routes.append(Route(dst="0.0.0.0/0", gw=given.router))
    return Result(ips=(ip,), routes=tuple(msgspec.structs.replace(route, priority=priority) for route in routes))


def _classful(address: str) -> int:
    """The prefix length of an address by its class, as before CIDR (RFC 2132, 5.8)."""
    first = int(address.split(".")[0])
    return 8 if first < 128 else 16 if first < 192 else 24


class Lease(msgspec.Struct, frozen=True):
    """An attachment's lease and all that its client has to know. `netns` is where it is here, `space` the namespace itself."""

    network: str
    container_id: str
    ifname: str
    netns: str
    space: str
    sent: dict[int, str]
    asked: tuple[int, ...]
    priority: int = 0
    terms: Terms | None = None

    @property
    def title(self) -> str:
        return f"{self.container_id}/{self.network}/{self.ifname}"


def space(netns: str) -> str:
    """What tells a namespace from another one that later has the same path; the empty text where there is none."""
    try:
        there = os.stat(netns)
    except OSError:
        return ""
    return f"{there.st_dev}:{there.st_ino}"


class Store:
    """The leases as files, `<folder>/<network>/<container id>:<ifname>`, each a line of JSON."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _path(self, lease: Lease) -> str:
        return os.path.join(self.folder, lease.network, f"{lease.container_id}:{lease.ifname}")

    def write(self, lease: Lease) -> None:
        """Writes the file whole or not at all. Raises OSError."""
        path = self._path(lease)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        folder, name = os.path.split(path)
        fresh = os.path.join(folder, f".{name}")  # no container id begins so
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(lease) + b"\n")
        os.replace(fresh, path)

    def remove(self, lease: Lease) -> None:
        path = self._path(lease)
        with contextlib.suppress(OSError):
            os.unlink(path)
            os.rmdir(os.path.dirname(path))

    def all(self) -> Iterator[Lease]:
        """Every lease that was written; what is no lease is left out."""
        for folder, _, names in os.walk(self.folder):
            for name in sorted(names):
                with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
                    with open(os.path.join(folder, name), "rb") as file:
                        lease = msgspec.json.decode(file.read(), type=Lease)
                    if self._path(lease) == os.path.join(folder, name):
                        yield lease
