"""vlan: an 802.1Q VLAN of a link of the node (main sheet 6)."""

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
LINKS = ("vlan",)


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/vlan.md says what they do."""

    master: str = ""
    vlan_id: int = 0
    mtu: int = 0
    link_in_container: bool = False
    ipam: Ipam = Ipam()
    dns: Dns = Dns()


def _load(req: Request) -> Conf:
    """The configuration; a default route says nothing of the link that carries a VLAN, so `master` has to be named."""
    conf = req.config(Conf)
    if not conf.master:
        raise CniError('"master" field is required. It specifies the host interface name to create the VLAN for')
    if not 0 <= conf.vlan_id <= 4094:
        raise CniError(f"invalid VLAN ID {conf.vlan_id} (must be between 0 and 4094 inclusive)", details="`vlanId`")
    return conf


def add(req: Request, host: Host) -> Result:
    """Lease, link, addresses."""
    conf = _load(req)
    delegate.find(conf.ipam.type, req.path)  # addresses have to come from somewhere
    interface.check_name(req.ifname)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("vlan", req.attachment)):
        master = child.master(req, host, conf.master, inside=conf.link_in_container)
        child.check_mtu(conf.mtu, master)
        lease = child.early_lease(req, host, conf.ipam.type)
        return child.attach(req, host, _link(req, conf, master), master.mac, lease, conf.ipam.type, conf.dns)


def _link(req: Request, conf: Conf, master: Link) -> Plan:
    return render(
        "vlan/link.sh.j2",
        pod=req.netns,
        inside=conf.link_in_container,
        master=master.name,
        temporary=child.temporary(req),
        netns=req.netns.name or req.netns.path,
        mtu=conf.mtu,
        id=conf.vlan_id,
        ifname=req.ifname,
    )


def delete(req: Request, host: Host) -> None:
    """Removes link and lease; neither master nor namespace has to be there."""
    child.delete(req, host, req.config(Conf).ipam.type)


def check(req: Request, host: Host) -> None:
    """Link, id, MTU, addresses and routes are as configured and as prevResult says, and the lease is there."""
    conf = _load(req)
    prev, link = child.check(req, host, conf.ipam.type, "vlan")
    child.master(req, host, conf.master, inside=conf.link_in_container)
    if link.linkinfo.info_data.id != conf.vlan_id:
        raise CniError(f"vlan: {req.ifname} has VLAN ID {link.linkinfo.info_data.id}, and `vlanId` is {conf.vlan_id}")
    if conf.mtu and link.mtu != conf.mtu:
        raise CniError(f"vlan: {req.ifname} has MTU {link.mtu}, and `mtu` is {conf.mtu}")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """The configuration can be used, the master is on the node, and the IPAM plugin is ready."""
    conf = _load(req)
    if not conf.link_in_container:
        child.require_master(req, host, conf.master)
    delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Has IPAM release what nobody holds; links are gone with their pods."""
    ipam.release(req, host, req.config(Conf).ipam.type, [])
