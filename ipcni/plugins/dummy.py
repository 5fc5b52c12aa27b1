"""dummy: a link that leads nowhere and carries addresses (main sheet 9)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.parts import child, interface, ipam
from ipcni.parts.ipam import Ipam
from ipcni.protocol import delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.shell.render import render

TOOLS = ("ip",)
LINKS = ("dummy",)


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's only key: it needs addresses."""

    ipam: Ipam = Ipam()


def _load(req: Request) -> str:
    """The IPAM plugin's name."""
    plugin = req.config(Conf, prefix="failed to parse network config").ipam.type
    if not plugin:
        raise CniError("dummy interface requires an IPAM configuration", details="`ipam`, with a `type`")
    return plugin


def add(req: Request, host: Host) -> Result:
    """Lease, link, addresses."""
    plugin = _load(req)
    interface.check_name(req.ifname)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("dummy", req.attachment)):
        lease = child.early_lease(req, host, plugin)
        mac = child.mac(req, host)
        make = render("dummy/link.sh.j2", pod=req.netns, ifname=req.ifname, mac=mac)
        return child.attach(req, host, make, mac, lease, plugin, None)


def delete(req: Request, host: Host) -> None:
    """Removes link and lease; what is gone already is fine."""
    child.delete(req, host, req.config(Conf, prefix="failed to parse network config").ipam.type, renamed=False)


def check(req: Request, host: Host) -> None:
    """The link is up, addresses and routes are as prevResult says, and the lease is there."""
    prev, link = child.check(req, host, _load(req), "dummy")
    if not link.up:
        raise CniError(f"Interface {req.ifname} is down")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """Whatever the IPAM plugin says."""
    delegate.call(req, host, req.config(Conf).ipam.type)


def gc(req: Request, host: Host) -> None:
    """Has IPAM release what nobody holds; links are gone with their pods."""
    ipam.release(req, host, req.config(Conf).ipam.type, [])
