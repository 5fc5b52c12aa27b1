"""Links as netdevice(7), /proc and /sys tell of them. Every pod's ADD asks, and a program would take 2 ms to answer."""

import array
import fcntl
import ipaddress
import os
import socket
import struct

import msgspec

from ipcni.model import by_name
from ipcni.shell import files
from ipcni.shell.iproute import Address, Link, LinkData, LinkInfo

_FLAGS, _MTU, _HWADDR, _TXQLEN, _CONF, _NETMASK = 0x8913, 0x8921, 0x8927, 0x8942, 0x8912, 0x891B  # SIOCGIF…
_INDEX, _NAME = 0x8933, 0x8910
_ETHTOOL, _DRIVER, _STRINGS, _STATISTICS = 0x8946, 0x03, 0x1B, 0x1D  # SIOCETHTOOL, ETHTOOL_G…
_IFREQ = 40  # bytes of a struct ifreq: a name of 16, and a union
_NAMES = {0x1: "UP", 0x8: "LOOPBACK", 0x100: "PROMISC", 0x200: "ALLMULTI"}
_SCOPES = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}  # of if_inet6


def device(name: str) -> Link | None:
    """The link of that name in this thread's namespace, without what only netlink knows: kind, master, peer, the details of addresses.

    None, too, for one that is called so by an alternative name longer than names are.
    """
    if not by_name(name):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:

        def ask(what: int) -> bytes:
            return fcntl.ioctl(asker, what, os.fsencode(name).ljust(_IFREQ, b"\0"))[16:]

        try:
            index = ask(_INDEX)[:4]
            name = os.fsdecode(fcntl.ioctl(asker, _NAME, (bytes(16) + index).ljust(_IFREQ, b"\0"))[:16].rstrip(b"\0"))
            flags = int.from_bytes(ask(_FLAGS)[:2], "little")
            return Link(
                name=name,
                ifindex=int.from_bytes(index, "little"),
                mac=ask(_HWADDR)[2:8].hex(":"),
                mtu=int.from_bytes(ask(_MTU)[:4], "little"),
                txqlen=int.from_bytes(ask(_TXQLEN)[:4], "little"),
                flags=tuple(word for bit, word in _NAMES.items() if flags & bit),
                promiscuity=int(bool(flags & 0x100)),
                addr_info=(*_ipv4(asker, name), *_ipv6(name)),
            )
        except OSError:
            return None


def bridge(name: str) -> Link | None:
    """The bridge of that name on the node, or None where there is none, or where /sys is another namespace's."""
    folder = f"/sys/class/net/{name}"
    try:
        if not os.path.isdir(f"{folder}/bridge") or (link := device(name)) is None or link.mac != _read(f"{folder}/address"):
            return None
        promiscuous = bool(int(_read(f"{folder}/flags"), 16) & 0x100)
        data = LinkData(
            vlan_filtering=_of_vlans(f"{folder}/bridge/vlan_filtering"),
            vlan_default_pvid=_of_vlans(f"{folder}/bridge/default_pvid"),
        )
    except OSError:  # gone meanwhile
        return None
    return msgspec.structs.replace(link, promiscuity=int(promiscuous), linkinfo=LinkInfo("bridge", data))


def peer(name: str) -> int:
    """The index of the other end of the veth of that name in this thread's namespace, by its statistics (veth(4)); 0 where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:

        def ask(head: bytes, size: int) -> bytes:
            room = array.array("B", head.ljust(size, b"\0"))
            fcntl.ioctl(asker, _ETHTOOL, struct.pack("16sP16x", os.fsencode(name), room.buffer_info()[0]))
            return room.tobytes()

        try:
            driver = ask(struct.pack("I", _DRIVER), 196)  # struct ethtool_drvinfo
            count = struct.unpack_from("I", driver, 180)[0]
            if driver[4:36].rstrip(b"\0") != b"veth":
                return 0
            names = ask(struct.pack("III", _STRINGS, 1, count), 12 + 32 * count)[12:]
            values = struct.unpack_from(f"{count}Q", ask(struct.pack("II", _STATISTICS, count), 8 + 8 * count), 8)
        except OSError:
            return 0
    known: dict[bytes, int] = {names[32 * at : 32 * at + 32].rstrip(b"\0"): value for at, value in enumerate(values)}
    return known.get(b"peer_ifindex", 0)


def _of_vlans(path: str) -> int:
    return int(_read(path)) if os.path.exists(path) else 0  # a kernel without VLAN filtering


def _read(path: str) -> str:
    return files.content(path).decode("utf-8", "replace").strip()


def _ipv4(asker: socket.socket, name: str) -> list[Address]:
    size = struct.unpack("iP", fcntl.ioctl(asker, _CONF, struct.pack("iP", 0, 0)))[0] + 16 * _IFREQ
    room = array.array("B", bytes(size))
    size = struct.unpack("iP", fcntl.ioctl(asker, _CONF, struct.pack("iP", size, room.buffer_info()[0])))[0]
    found = []
    for at in range(0, size, _IFREQ):
        one = room[at : at + _IFREQ].tobytes()
        label = one[:16].rstrip(b"\0").decode(errors="replace")
        if label.partition(":")[0] == name:
            local = socket.inet_ntoa(one[20:24])
            mask = int.from_bytes(fcntl.ioctl(asker, _NETMASK, one)[20:24], "big")
            found.append(Address(local=local, length=mask.bit_count(), scope="host" if local.startswith("127.") else "global"))
    return found


def _ipv6(name: str) -> list[Address]:
    try:
        text = _read("/proc/thread-self/net/if_inet6")
    except FileNotFoundError:  # a kernel without IPv6
        return []
    return [
        Address(
            local=str(ipaddress.IPv6Address(int(local, 16))),
            length=int(length, 16),
            family="inet6",
            scope=_SCOPES[int(scope, 16)],
        )
        for local, _, length, scope, _, link in map(str.split, text.splitlines())
        if link == name
    ]
