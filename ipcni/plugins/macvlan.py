"""macvlan: another MAC on the wire of a link of the node (main sheet 4)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.parts import child, interface, ipam
from ipcni.parts.child import Mac
from ipcni.parts.ipam import Ipam
from ipcni.protocol import delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

TOOLS = ("ip",)
LINKS = ("macvlan",)
_MODES = ("bridge", "private", "vepa", "passthru")


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/macvlan.md says what they do."""

    master: str = ""
    mode: str = ""
    mtu: int = 0
    mac: str = ""
    link_in_container: bool = False
    bc_queue_len: int = msgspec.field(default=0, name="bcqueuelen")
    ipam: Ipam = Ipam()
    dns: Dns = Dns()
    runtime_config: Mac = Mac()


def _checked(req: Request, host: Host, conf: Conf) -> tuple[Link, str, str]:
    """Master, mode and the MAC that somebody wants, if any."""
    mode = child.one_of(conf.mode, _MODES, "macvlan mode")
    if not 0 <= conf.bc_queue_len < 1 << 32:
        raise CniError(
            f"invalid bcqueuelen {conf.bc_queue_len}", details="`bcqueuelen` is a number of packets, at most 4294967295"
        )
    mac = child.asked_mac(req, conf.mac, conf.runtime_config)
    master = child.master(req, host, conf.master, inside=conf.link_in_container)
    child.check_mtu(conf.mtu, master)
    return master, mode, mac


def add(req: Request, host: Host) -> Result:
    """Lease, link, addresses."""
    conf = req.config(Conf)
    ipam.check_version(req, conf.ipam.type)
    interface.check_name(req.ifname)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("macvlan", req.attachment)):
        master, mode, mac = _checked(req, host, conf)
        # One in passthru mode has the master's MAC: another one would be given to the master.
        mac = mac or (master.mac if mode == "passthru" else child.mac(req, host))
        lease = child.early_lease(req, host, conf.ipam.type)
        make = _link(req, conf, master, mode, mac)
        return child.attach(req, host, make, mac, lease, conf.ipam.type, conf.dns, child.notify(req))


def _link(req: Request, conf: Conf, master: Link, mode: str, mac: str) -> Plan:
    return render(
        "macvlan/link.sh.j2",
        pod=req.netns,
        inside=conf.link_in_container,
        master=master.name,
        temporary=child.temporary(req),
        netns=req.netns.name or req.netns.path,
        mtu=conf.mtu,
        mac="" if mode == "passthru" and mac == master.mac else mac,
        mode=mode,
        queue=conf.bc_queue_len,
        ifname=req.ifname,
    )


def delete(req: Request, host: Host) -> None:
    """Removes link and lease; neither master nor namespace has to be there."""
    child.delete(req, host, req.config(Conf).ipam.type)


def check(req: Request, host: Host) -> None:
    """Link, mode, MAC, addresses and routes are as configured and as prevResult says, and the lease is there."""
    conf = req.config(Conf)
    if conf.link_in_container:
        interface.open_netns(host.facts, req.netns)
    _, mode, _ = _checked(req, host, conf)
    prev, link = child.check(req, host, conf.ipam.type, "macvlan")
    if link.linkinfo.info_data.mode != mode:
        raise CniError(f"container macvlan mode {link.linkinfo.info_data.mode} does not match expected value: {mode}")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """There is a master on the node, and the IPAM plugin is ready, if there is one."""
    conf = req.config(Conf)
    if not conf.link_in_container:
        child.require_master(req, host, conf.master)
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Has IPAM release what nobody holds; links are gone with their pods."""
    ipam.release(req, host, req.config(Conf).ipam.type, [])
