"""bandwidth: no more than so many bits a second to a pod, or from it (meta sheet 4)."""

import os

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Attachment
from ipcni.parts import bandwidth_conf, interface, notes
from ipcni.parts.bandwidth_conf import Limit
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, Result
from ipcni.shell.facts import read
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
TOOLS = ("ip", "tc")
LINKS = ("ifb",)
QUEUES = ("root tbf rate 8bps burst 8 limit 8", "ingress")
_DEFAULT_MTU = 1500


def _lock(req: Request) -> str:
    """The device's name is of network and container: their interfaces share it."""
    return names.lock("bandwidth", Attachment(req.network, req.container_id, ""))


def add(req: Request, host: Host) -> Result:
    """Limits on the pod's link on the node, and the device for what comes from the pod, which the result gets."""
    ingress, egress = bandwidth_conf.load(req)
    prev = req.prev_result()
    if prev is None:
        raise CniError("must be called as chained plugin", details="bandwidth comes behind the plugin that makes the link")
    if not ingress and not egress:
        return prev
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(_lock(req)):
        veth, mtu = _host_end(req, host, prev)
        ifb = Interface(
            name=names.ifb(req.attachment), mac=names.mac(host.facts.machine_id(), "ifb", req.network, req.container_id)
        )
        if egress and host.live and host.facts.mac(ifb.name):  # before the note, which says that it is ours
            other = ", ".join(notes.beside(req, host)) or req.ifname
            raise CniError(
                "adding link: file exists",
                details=f"there is a {ifb.name} for the container's {other}: a network limits what comes from one interface",
            )
        plan = notes.take(req, host, ifb.name) if egress else ()
        plan += render("bandwidth/shape.sh.j2", veth=veth, mtu=mtu, ifb=ifb.name, mac=ifb.mac, ingress=ingress, egress=egress)
        host.do(plan)
    return msgspec.structs.replace(prev, interfaces=(*prev.interfaces, ifb)) if egress else prev


def _host_end(req: Request, host: Host, prev: Result) -> tuple[str, int]:
    """The other end of the pod's link, and its MTU. Raises CniError where the pod's link is no veth, or the result doesn't know the end."""
    if not prev.interfaces:
        raise CniError("no interfaces provided", details="prevResult has no `interfaces`")
    on_node = [each.name for each in prev.interfaces if not each.sandbox]
    if not host.live and on_node:  # there is none yet: it will be the one that is called like a veth
        link = host.facts.link(req.ifname, req.netns)
        return next((name for name in on_node if name.startswith("veth")), on_node[-1]), link.mtu if link else _DEFAULT_MTU
    index = host.facts.peer(req.ifname, req.netns)
    if not index:
        raise _no_veth(req.ifname, host.facts.link(req.ifname, req.netns))
    for name in on_node:
        if read(f"/sys/class/net/{name}/ifindex") == str(index):
            return name, int(read(f"/sys/class/net/{name}/mtu") or _DEFAULT_MTU)
    if any(read(f"/sys/class/net/{name}/ifindex") == str(index) for name in os.listdir("/sys/class/net")):
        raise CniError(
            "no veth peer of container interface found in host ns", details="prevResult does not list it among its `interfaces`"
        )
    raise CniError(f"veth peer with index {index} is not in host ns")


def _no_veth(ifname: str, link: Link | None) -> CniError:
    what = f"container interface {ifname} has no veth peer"
    if link is None:
        return CniError(f'{what}: could not look up "{ifname}": Link not found')
    return CniError(f'{what}: interface "{ifname}" was not a veth interface', details=f"it is a {link.kind or 'physical'} link")


def delete(req: Request, host: Host) -> None:
    """Removes the device; what is gone already is fine. Limits are not looked at: those of the pod's link go with it."""
    with host.locked(_lock(req)):
        failures = _remove(req, host)
    if failures:
        raise failures[0]


def _remove(req: Request, host: Host) -> list[CniError]:
    ifb = names.ifb(req.attachment)
    others = not notes.words(req, host) and notes.beside(req, host)  # without it, that interface could send nothing
    plan = render("bandwidth/remove.sh.j2", ifb=ifb) if host.facts.mac(ifb) and not others else ()
    return list(host.do(plan + notes.drop(req, host), keep_going=True))


def check(req: Request, host: Host) -> None:
    """The limits are on the pod's link and its device, as they were asked for, and what comes from the pod is sent to the device."""
    ingress, egress = bandwidth_conf.load(req)
    prev = req.prev_result()
    if prev is None:
        raise CniError("must be called as a chained plugin")
    interface.open_netns(host.facts, req.netns)
    veth, _ = _host_end(req, host, prev)
    if ingress:
        _check(host, veth, ingress)
    if egress:
        ifb = names.ifb(req.attachment)
        if not host.facts.mac(ifb):
            raise CniError("get ifb device: Link not found", details=f"there is no {ifb} on the node")
        _check(host, ifb, egress)
        if ifb not in host.facts.redirects(veth):
            raise CniError("Failed to find filter", details=f"`tc filter show dev {veth} parent ffff:` sends nothing to {ifb}")


def _check(host: Host, link: str, wanted: Limit) -> None:
    found = next((each for each in host.facts.qdiscs(link) if each.root and each.kind == "tbf"), None)
    if found is None:
        raise CniError("Failed to find qdisc", details=f"`tc qdisc show dev {link}` has no tbf at its root")
    if what := wanted.differs(found.options):
        raise CniError(
            f"{what} doesn't match", details=f"`tc qdisc show dev {link}`, against {wanted.rate} bytes/s, {wanted.burst} at once"
        )


def gc(req: Request, host: Host) -> None:
    """Removes the devices of containers that are no more. All is tried."""
    valid = req.valid_attachments()
    failures: list[CniError] = []
    for each in notes.stale(req, host, valid) if valid is not None else ():
        with host.locked(_lock(each)):
            failures += _remove(each, host)
    if failures:
        raise failures[0]
