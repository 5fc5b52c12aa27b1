"""vrf: puts the pod's link into a VRF, a routing table of its own (meta sheet 7)."""

import itertools

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Attachment, Plan
from ipcni.parts import interface, lent
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
TOOLS = ("ip",)
LINKS = ("vrf",)
_MAIN = 254
_KERNELS_OWN = (253, 254, 255)


class Conf(msgspec.Struct, frozen=True):
    """The plugin's keys; docs/plugins/vrf.md says what they do."""

    vrfname: str = ""
    table: int = 0


def _load(req: Request) -> Conf:
    conf = req.config(Conf)
    if not conf.vrfname:
        raise CniError("configuration is expected to have a valid vrf name", details="`vrfname`")
    if not 0 <= conf.table < 1 << 32:
        raise CniError(f"failed to load netconf: table {conf.table} is no number from 0 to 4294967295", details="`table`")
    return conf


def _lock(req: Request) -> str:
    """A VRF is for all links of a container."""
    return names.lock("vrf", Attachment("", req.container_id, ""))


def _vrf(req: Request, host: Host, name: str) -> Link | None:
    """Raises CniError where a link of that name is something else."""
    link = host.facts.link(name, req.netns)
    if link is not None and link.kind != "vrf":
        raise CniError(
            f"Netlink {name} is not a VRF", details=f"`vrfname` is the name of a {link.kind or 'physical'} link in the pod"
        )
    return link


def add(req: Request, host: Host) -> Result:
    """VRF, if there is none of that name yet, and the link into it, with its addresses and routes. Passes prevResult on."""
    conf = _load(req)
    prev = req.prev_result()
    if prev is None:
        raise CniError("missing prevResult from earlier plugin", details="vrf comes behind the plugin that makes the link")
    try:
        _enslave(req, host, conf)
    except CniError as error:
        raise error.under("cmdAdd failed") from error
    return prev


def _enslave(req: Request, host: Host, conf: Conf) -> None:
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(_lock(req)):
        vrf, link = _vrf(req, host, conf.vrfname), host.facts.link(req.ifname, req.netns)
        if vrf and conf.table and vrf.linkinfo.info_data.table != conf.table:
            has = vrf.linkinfo.info_data.table
            raise CniError(f"VRF {conf.vrfname} already exist with different routing table {has}")
        if link is None:
            raise CniError(f"could not get link by name {req.ifname}", details=f"{req.netns_path} has no such link")
        if link.master == conf.vrfname:
            return  # this ADD was done before
        if link.master:
            raise CniError(f"interface {req.ifname} has already a master set: {link.master}")
        table = vrf.linkinfo.info_data.table if vrf else conf.table or _free_table(req, host)
        plan: Plan = ()
        mac = names.mac(host.facts.machine_id(), "vrf", req.container_id, conf.vrfname)
        if vrf is None:
            plan = render("vrf/vrf.sh.j2", pod=req.netns, vrf=conf.vrfname, table=table, mac=mac)
        kept = _kept(req, host, link, _MAIN)
        host.on_undo(lambda: host.do(_released(req, conf, last=False) + _again(req, kept, _MAIN), keep_going=True))
        plan += render("vrf/enslave.sh.j2", pod=req.netns, ifname=req.ifname, vrf=conf.vrfname)
        host.do(plan + _again(req, kept, table))


def _free_table(req: Request, host: Host) -> int:
    """The smallest number that no VRF of the pod has."""
    used = {link.linkinfo.info_data.table for link in host.facts.links(req.netns).values() if link.kind == "vrf"}
    return next(number for number in itertools.count(1) if number not in used and number not in _KERNELS_OWN)


class Kept(msgspec.Struct, frozen=True):
    """What of a link must be put back when it has changed its table: IPv6 addresses as the words behind `ip addr replace`, routes as those
    behind `ip route append`."""

    addresses: tuple[tuple[str, ...], ...]
    routes: tuple[tuple[str, ...], ...]


def _kept(req: Request, host: Host, link: Link, table: int) -> Kept:
    place = "main" if table == _MAIN else str(table)
    # The kernel puts the latest IPv6 address first.
    six = [each for each in reversed(link.addresses) if each.family == "inet6" and each.scope == "global"]
    routes = interface.kept(host.facts.routes(4, req.netns, place), req.ifname, 4)
    routes += interface.kept(host.facts.routes(6, req.netns, place), req.ifname, 6)
    return Kept(tuple(lent.address(each, req.ifname) for each in six), tuple(routes))


def _again(req: Request, kept: Kept, table: int) -> Plan:
    return render(
        "vrf/kept.sh.j2",
        pod=req.netns,
        ifname=req.ifname,
        table="main" if table == _MAIN else table,
        addresses=kept.addresses,
        routes=kept.routes,
    )


def _released(req: Request, conf: Conf, *, last: bool, there: bool = True) -> Plan:
    return render("vrf/release.sh.j2", pod=req.netns, ifname=req.ifname if there else "", vrf=conf.vrfname, last=last)


def delete(req: Request, host: Host) -> None:
    """Takes the link out of the VRF, with its addresses and routes, and removes a VRF that has no other link; what is gone is fine."""
    conf = _load(req)
    if not req.netns_path or not host.facts.netns_there(req.netns):
        return
    with host.locked(_lock(req)):
        vrf = _vrf(req, host, conf.vrfname)
        if vrf is None:
            return
        slaves = {link.name: link for link in host.facts.links(req.netns).values() if link.master == conf.vrfname}
        mine = slaves.pop(req.ifname, None)
        plan: Plan = ()
        if mine or not slaves:
            plan += _released(req, conf, last=not slaves, there=mine is not None)
        if mine:
            plan += _again(req, _kept(req, host, mine, vrf.linkinfo.info_data.table), _MAIN)
        failures = host.do(plan, keep_going=True)
    if failures:
        raise failures[0]


def check(req: Request, host: Host) -> None:
    """The link is in the VRF, and the VRF has the table that is configured."""
    conf = _load(req)
    if req.prev_result() is None:
        raise CniError("missing prevResult from earlier plugin")
    interface.open_netns(host.facts, req.netns)
    vrf, link = _vrf(req, host, conf.vrfname), host.facts.link(req.ifname, req.netns)
    if vrf is None:
        raise CniError("Link not found", details=f"the pod has no VRF {conf.vrfname}")
    if link is None or link.master != conf.vrfname:
        raise CniError(f"failed to find {req.ifname} associated to vrf {conf.vrfname}")
    if conf.table and vrf.linkinfo.info_data.table != conf.table:
        raise CniError(f"VRF {conf.vrfname} has routing table {vrf.linkinfo.info_data.table}, and `table` is {conf.table}")
