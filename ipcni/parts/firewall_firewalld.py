"""Addresses of pods as sources of a firewalld zone, by D-Bus (meta sheet 3.4). Firewalld forgets them when it is reloaded."""

import os

from ipcni.errors import CniError
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.shell.facts import busctl

_SOCKET = "/var/run/dbus/system_bus_socket"
_NAME = "org.fedoraproject.FirewallD1"
_ZONE = (_NAME, "/org/fedoraproject/FirewallD1", f"{_NAME}.zone")
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def _address(req: Request) -> str:
    return req.env.get("DBUS_SYSTEM_BUS_ADDRESS", "")


def _socket(req: Request) -> str:
    """The bus's socket, or nothing where it is none in the file system."""
    address = _address(req) or f"unix:path={_SOCKET}"
    return address.removeprefix("unix:path=").partition(",")[0] if address.startswith("unix:path=") else ""


def running(req: Request, host: Host) -> bool:
    """Whether firewalld is on the bus. Without a bus, or a tool to ask it, no process is started."""
    socket = _socket(req)
    if not host.has("busctl") or (socket and not os.path.exists(socket)):
        return False
    return host.facts.bus(_address(req), *_BUS, "GetNameOwner", "s", _NAME).status == 0


def require(req: Request, host: Host) -> None:
    """Raises CniError where there is no bus, or no tool for it."""
    socket = _socket(req)
    if socket and not os.path.exists(socket):
        raise CniError(
            f"dial unix {socket}: connect: no such file or directory",
            details="`backend` is firewalld, and there is no D-Bus; leave it out, and iptables is used where firewalld does not run",
        )
    if not host.has("busctl"):
        raise CniError("this node has no busctl, by which firewalld is told", details="it comes with systemd")


def verify(req: Request, host: Host, zone: str, addresses: tuple[str, ...]) -> None:
    """Raises CniError for the first address that is not in the zone."""
    require(req, host)
    for each in hosts(addresses):
        said = host.facts.bus(_address(req), *_ZONE, "querySource", "ss", zone, each)
        if said.status or said.out.split() != ["b", "true"]:
            raise CniError(f"failed to find the address {each} in {zone} zone", details=said.err.strip())


def hosts(addresses: tuple[str, ...]) -> list[str]:
    """Addresses as prefixes of one host."""
    return [f"{each}/{128 if ':' in each else 32}" for each in addresses]


def values(req: Request, zone: str, addresses: tuple[str, ...]) -> dict[str, object]:
    """Those of the templates."""
    return {"zone_call": (*busctl(_address(req)), *_ZONE), "zone": zone, "sources": hosts(addresses)}
