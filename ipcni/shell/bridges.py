"""A bridge of the node as /sys, /proc and netdevice(7) tell of it: every pod's ADD asks for it, and a program would take 2 ms to answer."""

import array
import fcntl
import ipaddress
import os
import socket
import struct

from ipcni.shell.iproute import Address, Link, LinkData, LinkInfo

_SIOCGIFCONF, _SIOCGIFNETMASK, _SIOCGIFHWADDR = 0x8912, 0x891B, 0x8927
_IFREQ = 40  # bytes of a struct ifreq: a name of 16, and a union
_UP, _PROMISC = 0x1, 0x100  # netdevice(7), SIOCGIFFLAGS
_SCOPES = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}  # of /proc/net/if_inet6


def bridge(name: str) -> Link | None:
    """The bridge with its addresses, or None where there is none of that name, or where /sys is another namespace's."""
    folder = f"/sys/class/net/{name}"
    if not os.path.isdir(f"{folder}/bridge"):
        return None
    try:
        mac = _read(f"{folder}/address")
        if _mac(name) != mac:
            return None
        flags = int(_read(f"{folder}/flags"), 16)
        data = LinkData(
            vlan_filtering=_of_vlans(f"{folder}/bridge/vlan_filtering"),
            vlan_default_pvid=_of_vlans(f"{folder}/bridge/default_pvid"),
        )
        return Link(
            name=name,
            mac=mac,
            mtu=int(_read(f"{folder}/mtu")),
            flags=("UP",) if flags & _UP else (),
            promiscuity=int(bool(flags & _PROMISC)),
            linkinfo=LinkInfo("bridge", data),
            addr_info=(*_ipv4(name), *_ipv6(name)),
        )
    except OSError:  # gone meanwhile
        return None


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _mac(name: str) -> str:
    with _asker() as asker:
        return fcntl.ioctl(asker, _SIOCGIFHWADDR, name.encode().ljust(_IFREQ, b"\0"))[18:24].hex(":")


def _asker() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _of_vlans(path: str) -> int:
    return int(_read(path)) if os.path.exists(path) else 0  # a kernel without VLAN filtering


def _ipv4(name: str) -> list[Address]:
    found = []
    with _asker() as asker:
        size = struct.unpack("iP", fcntl.ioctl(asker, _SIOCGIFCONF, struct.pack("iP", 0, 0)))[0] + 16 * _IFREQ
        room = array.array("B", bytes(size))
        size = struct.unpack("iP", fcntl.ioctl(asker, _SIOCGIFCONF, struct.pack("iP", size, room.buffer_info()[0])))[0]
        for at in range(0, size, _IFREQ):
            one = room[at : at + _IFREQ].tobytes()
            label = one[:16].rstrip(b"\0").decode(errors="replace")
            if label.partition(":")[0] == name:
                mask = int.from_bytes(fcntl.ioctl(asker, _SIOCGIFNETMASK, one)[20:24], "big")
                found.append(Address(local=socket.inet_ntoa(one[20:24]), length=mask.bit_count()))
    return found


def _ipv6(name: str) -> list[Address]:
    if not os.path.exists("/proc/net/if_inet6"):  # a kernel without IPv6
        return []
    lines = (line.split() for line in _read("/proc/net/if_inet6").splitlines())
    return [
        Address(
            local=str(ipaddress.IPv6Address(int(local, 16))),
            length=int(length, 16),
            family="inet6",
            scope=_SCOPES[int(scope, 16)],
        )
        for local, _, length, scope, _, link in lines
        if link == name
    ]
