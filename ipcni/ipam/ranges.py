"""Ranges and range sets: which addresses there are, and in which order they are tried (IPAM sheet 2.1 to 2.3). Pure."""

import ipaddress
from collections.abc import Iterator

import msgspec

from ipcni.errors import CniError
from ipcni.model import Family
from ipcni.protocol import address as addresses


class RangeConf(msgspec.Struct, frozen=True, rename="camel"):
    """One range as configured; the empty text is the same as absent."""

    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


class Range(msgspec.Struct, frozen=True):
    """First and last address and the gateway, as numbers, and the subnet's prefix length."""

    first: int
    last: int
    gateway: int
    length: int
    family: Family

    def __contains__(self, address: addresses.Ip) -> bool:
        return address.version == self.family and self.first <= int(address) <= self.last

    def address(self, number: int) -> str:
        """The number as an address, as lease files are named."""
        kind = ipaddress.IPv6Address if self.family == 6 else ipaddress.IPv4Address
        return str(addresses.ip(str(kind(number))))

    def __str__(self) -> str:
        return f"{self.address(self.first)}-{self.address(self.last)}"

    def overlaps(self, other: "Range") -> bool:
        """Whether some address is in both."""
        return self.family == other.family and self.first <= other.last and other.first <= self.last


RangeSet = tuple[Range, ...]


def title(range_set: RangeSet) -> str:
    """The set as errors name it: `10.1.2.1-10.1.2.6,10.1.3.1-10.1.3.6`."""
    return ",".join(str(each) for each in range_set)


def check(sets: tuple[tuple[RangeConf, ...], ...], version: str) -> tuple[RangeSet, ...]:
    """The configured sets in canonical form.

    Raises CniError in the reference's words for a range that is none, sets that overlap, or more than one address of a family at
    version 0.2.0 and older.
    """
    if not sets:
        raise CniError("no IP ranges specified", details="give `ipam.ranges` or `ipam.subnet`")
    for each in (each for conf in sets for each in conf):
        _decode(each)
    checked: list[RangeSet] = []
    for number, conf in enumerate(sets):
        try:
            checked.append(_range_set(conf))
        except CniError as error:
            raise error.under(f"invalid range set {number}") from error
    for i, mine in enumerate(checked):
        for j in range(i + 1, len(checked)):
            if any(a.overlaps(b) for a in mine for b in checked[j]):
                raise CniError(f"range set {i} overlaps with {j}")
    families = [each[0].family for each in checked]
    if version in ("0.1.0", "0.2.0") and len(families) != len(set(families)):
        raise CniError(f"CNI version {version} does not support more than 1 address per family")
    return tuple(checked)


def _decode(conf: RangeConf) -> None:
    """Raises CniError for a text that is no address or prefix, wherever it stands: the reference's decoder looks at them first."""
    if conf.subnet:
        addresses.cidr(conf.subnet)
    for text in (conf.range_start, conf.range_end, conf.gateway):
        if text:
            addresses.ip(text)


def _range_set(conf: tuple[RangeConf, ...]) -> RangeSet:
    if not conf:
        raise CniError("empty range set")
    ranges = tuple(_range(each) for each in conf)
    if len({each.family for each in ranges}) > 1:
        raise CniError("mixed address families")
    for i, mine in enumerate(ranges):
        for other in ranges[i + 1 :]:
            if mine.overlaps(other):
                raise CniError(f"subnets {mine} and {other} overlap")
    return ranges


def _range(conf: RangeConf) -> Range:
    interface = addresses.cidr(conf.subnet)
    network = interface.network
    family: Family = 6 if network.version == 6 else 4
    if network.prefixlen > network.max_prefixlen - 2:
        raise CniError(f"Network {interface} too small to allocate from")
    if family == 4 and ":" in conf.subnet:  # an IPv4-mapped one
        raise CniError("IPNet IP and Mask version mismatch")
    if interface.ip != network.network_address:
        raise CniError(
            f"Network has host bits set. For a subnet mask of length {network.prefixlen} the network address is "
            f"{network.network_address}"
        )
    base, top = int(network.network_address), int(network.broadcast_address)
    gateway = int(_of_family(conf.gateway, family)) if conf.gateway else base + 1
    start, end = base + 1, top - 1 if family == 4 else top
    end_ip = addresses.ip(conf.range_end) if conf.range_end else None
    if conf.range_start:
        start_ip = addresses.ip(conf.range_start)
        if start_ip not in network or (end_ip and int(start_ip) > int(end_ip)):
            raise CniError(f"RangeStart {start_ip} not in network {network}")
        start = int(start_ip)
    if end_ip:
        if end_ip not in network:
            raise CniError(f"RangeEnd {end_ip} not in network {network}")
        end = int(end_ip)
    if start > end:
        raise CniError(f"RangeEnd {ipaddress.ip_address(end)} not in network {network}")
    return Range(start, end, gateway, network.prefixlen, family)


def _of_family(text: str, family: Family) -> addresses.Ip:
    found = addresses.ip(text)
    if found.version != family:
        raise CniError(f"gateway {found} is no IPv{family} address")
    return found


def holding(range_set: RangeSet, address: addresses.Ip) -> Range | None:
    """The range of the set that the address lies in."""
    return next((each for each in range_set if address in each), None)


def candidates(range_set: RangeSet, last: addresses.Ip | None) -> Iterator[tuple[Range, int]]:
    """The addresses of a set in the order to try them: round robin, from the one after `last` on.

    `last` itself comes last of all; without it, or where it lies in no range, the order starts at the first range. The
    gateway of a range is left out.
    """
    index, current = 0, None
    if last is not None and (held := holding(range_set, last)):
        index, current = range_set.index(held), int(last)
    first: tuple[int, int] | None = None
    while True:
        if current is None:
            current = range_set[index].first
        elif current == range_set[index].last:
            index = (index + 1) % len(range_set)
            current = range_set[index].first
        else:
            current += 1
        if first is None:
            first = (index, current)
        elif first == (index, current):
            return
        if current != range_set[index].gateway:
            yield range_set[index], current
