"""ipvlan: other addresses with the MAC of a link of the node (main sheet 5)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.parts import child, interface, ipam
from ipcni.parts.ipam import Ipam
from ipcni.protocol import delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

TOOLS = ("ip",)
LINKS = ("ipvlan",)
_MODES = ("l2", "l3", "l3s")


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/ipvlan.md says what they do."""

    master: str = ""
    mode: str = ""
    mtu: int = 0
    link_in_container: bool = False
    ipam: Ipam = Ipam()
    dns: Dns = Dns()


def add(req: Request, host: Host) -> Result:
    """Lease, or the addresses of the chain so far, then link and addresses."""
    conf = req.config(Conf)
    mode = child.one_of(conf.mode, _MODES, "ipvlan mode")
    prev = req.prev_result()
    chained = prev if prev and prev.ips and not conf.ipam.type else None
    if chained is None:
        delegate.find(conf.ipam.type, req.path)  # addresses have to come from somewhere
    interface.check_name(req.ifname)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("ipvlan", req.attachment)):
        master = child.master(req, host, conf.master or _chained_master(prev), inside=conf.link_in_container)
        lease = chained or child.early_lease(req, host, conf.ipam.type)
        make = _link(req, conf, master, mode)
        return child.attach(req, host, make, master.mac, lease, conf.ipam.type, conf.dns, child.notify(req))


def _chained_master(prev: Result | None) -> str:
    """The one link that the chain has so far, or nothing where this plugin is the first."""
    if prev is None:
        return ""
    if len(prev.interfaces) != 1 or not prev.interfaces[0].name:
        raise CniError(
            "chained master failure. PrevResult lacks a single named interface", details="name the master with `master`"
        )
    return prev.interfaces[0].name


def _link(req: Request, conf: Conf, master: Link, mode: str) -> Plan:
    return render(
        "ipvlan/link.sh.j2",
        pod=req.netns,
        inside=conf.link_in_container,
        master=master.name,
        temporary=child.temporary(req),
        netns=req.netns.name or req.netns.path,
        mtu=max(conf.mtu, 0),
        mode=mode,
        ifname=req.ifname,
    )


def delete(req: Request, host: Host) -> None:
    """Removes link and lease; neither master nor namespace has to be there."""
    child.delete(req, host, req.config(Conf).ipam.type)


def check(req: Request, host: Host) -> None:
    """Link, mode, addresses and routes are as configured and as prevResult says, and the lease is there."""
    conf = req.config(Conf)
    mode = child.one_of(conf.mode, _MODES, "ipvlan mode")
    prev, link = child.check(req, host, conf.ipam.type, "ipvlan")
    if conf.master:
        child.master(req, host, conf.master, inside=conf.link_in_container)
    if link.linkinfo.info_data.mode != mode:
        raise CniError(f"Container IPVlan mode {link.linkinfo.info_data.mode} does not match expected value: {mode}")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """The master that is named is on the node, and the IPAM plugin is ready, if there is one."""
    conf = req.config(Conf)
    if conf.master and not conf.link_in_container:
        child.require_master(req, host, conf.master)
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Has IPAM release what nobody holds; links are gone with their pods."""
    ipam.release(req, host, req.config(Conf).ipam.type, [])
