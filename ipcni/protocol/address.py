"""Addresses and prefixes as text, by the rules of the protocol sheet 5.2 (Go's net.ParseIP and net.ParseCIDR)."""

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from ipcni.errors import CniError
from ipcni.model import Family

Ip = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_PREFIX = re.compile(r"[^/%]+/[0-9]{1,3}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2})*|[0-9a-fA-F]{4}(?:\.[0-9a-fA-F]{4})+")


def ip(text: str) -> Ip:
    """An address; an IPv4-mapped one counts as IPv4. Raises CniError `invalid IP address: …`."""
    try:
        if "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise CniError(f"invalid IP address: {text}") from None
    return getattr(address, "ipv4_mapped", None) or address


def is_ip(text: str) -> bool:
    """Whether the text is an address."""
    try:
        ip(text)
    except CniError:
        return False
    return True


def cidr(text: str) -> Interface:
    """An address with its prefix length, host bits kept. Raises CniError `invalid CIDR address: …`."""
    try:
        if not _PREFIX.fullmatch(text):
            raise ValueError
        parsed = ipaddress.ip_interface(text)
        mapped = getattr(parsed.ip, "ipv4_mapped", None)
        return ipaddress.ip_interface(f"{mapped}/{parsed.network.prefixlen - 96}") if mapped else parsed
    except ValueError:
        raise CniError(f"invalid CIDR address: {text}") from None


def family(text: str) -> Family:
    """4 or 6, by the look of an address or prefix that has been checked before."""
    return 6 if ":" in text else 4


def mac(text: str) -> str:
    """A hardware address in the form iproute2 takes: lower case, colons. Raises CniError `address …: invalid MAC address`."""
    digits = re.sub("[^0-9a-fA-F]", "", text).lower()
    if not _MAC.fullmatch(text) or len(digits) not in (12, 16, 40):
        raise CniError(f"address {text}: invalid MAC address")
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
