"""host-device: a link of the node that is the pod's for a while (main sheet 7)."""

from collections.abc import Sequence

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Netns
from ipcni.parts import child, device, interface, ipam, lent, notes
from ipcni.parts.device import Conf
from ipcni.parts.lent import Before
from ipcni.protocol import delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Interface, Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

TOOLS = ("ip",)


def add(req: Request, host: Host) -> Result:
    """Lease, move, addresses."""
    conf = req.config(Conf)
    wanted = device.find(req, host)
    ipam.check_version(req, conf.ipam.type)
    interface.check_name(req.ifname)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("host-device", req.attachment)):
        lease = child.early_lease(req, host, conf.ipam.type)
        if not wanted.link:
            return _userspace(req, host, conf, lease)
        link = wanted.found or host.facts.link(wanted.link)
        if link is None:
            raise CniError("failed to find host device: Link not found", details=f"there is no link {wanted.link} on the node")
        if host.live and host.facts.device(req.ifname, req.netns):
            # The kernel would move the link first, and then find that it cannot be called so.
            raise CniError(
                f"failed to move link {link.name} to container NS: file exists", details=f"the pod has a {req.ifname} already"
            )
        before = lent.look(req, host, link)
        host.do(notes.take(req, host, before.note))
        host.on_undo(lambda: host.do(lent.restored(before), keep_going=True))
        make = render(
            "host-device/move.sh.j2",
            pod=req.netns,
            netns=req.netns.name or req.netns.path,
            device=link.name,
            alias=before.alias,
            ifname=req.ifname,
        )
        dns = conf.dns if conf.ipam.type else Dns()
        return child.attach(req, host, make, link.mac, lease, conf.ipam.type, dns)


def _userspace(req: Request, host: Host, conf: Conf, lease: Result | None) -> Result:
    """A device that a program in the pod drives has no link: the answer is all there is."""
    if lease is None and conf.ipam.type:
        lease = ipam.lease(req, host, conf.ipam.type)
    given = lease or Result()
    ips = tuple(msgspec.structs.replace(ip, interface=0) for ip in given.ips)
    pod = Interface(name=req.ifname, sandbox=req.netns_path)
    return Result(interfaces=(pod,), ips=ips, routes=given.routes, dns=conf.dns if lease else Dns())


def delete(req: Request, host: Host) -> None:
    """Gives the link back to the node as it was, and the lease; what is done already is fine. All is tried."""
    plugin = req.config(Conf).ipam.type
    with host.locked(names.lock("host-device", req.attachment)):
        problems: list[CniError] = []
        rest = ipam.release_by_link(req, host, plugin, problems)
        ipam.release(req, host, rest, problems + _give_back(req, host))


def _give_back(req: Request, host: Host) -> list[CniError]:
    """What of the link could not be given back. A namespace that nobody names any more is in the note."""
    before = lent.noted(req, host)
    pod: Netns | None = Netns(req.netns_path or before.netns)
    there = bool(pod and pod.path and host.facts.netns_there(pod))
    link = host.facts.link(req.ifname, pod) if there else None
    if link and not req.netns_path and link.ifalias != before.device:
        link = None  # what is at the noted path is another pod's by now
    if link is None and before.device and there:
        link = _alike(host, before, pod)
    if link is None and before.device:
        pod, link = None, _alike(host, before, None)
    problems: list[CniError] = []
    if link is not None:
        try:
            problems += _move_back(req, host, link, before, pod)
        except CniError as error:
            return [error]
    host.do(notes.drop(req, host), keep_going=True)
    return problems


def _alike(host: Host, before: Before, place: Netns | None) -> Link | None:
    """The link under whatever name: one that the pod gave it, or, on the node, that with which the kernel gave it back when the
    pod's namespace went."""
    alike = (link for link in host.facts.links(place).values() if before.mac in (link.mac, link.permaddr))
    return next((link for link in alike if link.ifalias == before.device), None)


def _move_back(req: Request, host: Host, link: Link, before: Before, pod: Netns | None) -> Sequence[CniError]:
    """Raises CniError where the link stays where it is; returns what it could not get again."""
    device = before.device or link.ifalias  # the pod can change the alias, not the note
    if not device and not _has_link(req, host):
        return ()
    if not device:
        raise CniError(
            f'failed to find original ifname for "{req.ifname}" (alias is not set)',
            details="give the link its old name as alias (`ip link set dev … alias NAME`), and call DEL again",
        )
    if (pod or link.name != device) and host.facts.mac(device):
        # The kernel would move the link first, and then find that it cannot be called so.
        raise CniError(
            f'failed to move "{device}" to hostNS: file exists', details=f"another link of the node is called {device} now"
        )
    host.do(render("host-device/back.sh.j2", pod=pod, link=link.name, device=device, alias=before.alias))
    return host.do(lent.restored(msgspec.structs.replace(before, device=device), link), keep_going=True)


def _has_link(req: Request, host: Host) -> bool:
    """Whether the device that is asked for has a link: one that a program drives has none, here or there."""
    try:
        return bool(device.find(req, host).link)
    except CniError:
        return True


def check(req: Request, host: Host) -> None:
    """The link is in the pod with its MAC, addresses and routes are as prevResult says, and the lease is there."""
    conf = req.config(Conf)
    interface.open_netns(host.facts, req.netns)
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)
    prev = req.required_result()
    mine = interface.in_result(prev, req)
    if not mine.mac:
        return  # a program drives it
    link = host.facts.link(req.ifname, req.netns)
    if link is None:
        raise CniError(f"Container Interface name in prevResult: {req.ifname} not found")
    if mine.mac.lower() != link.mac:
        raise CniError(f"Interface {req.ifname} Mac {mine.mac} doesn't match container Mac: {link.mac}")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """The IPAM plugin is ready, if there is one. A device that a pod has is no reason to refuse other pods."""
    plugin = req.config(Conf).ipam.type
    if plugin:
        delegate.call(req, host, plugin)


def gc(req: Request, host: Host) -> None:
    """Gives back the links of attachments that are no more, and has IPAM do the same for leases. All is tried."""
    valid = req.valid_attachments()
    problems: list[CniError] = []
    rest = ipam.release_by_link(req, host, req.config(Conf).ipam.type, problems)
    for each in notes.stale(req, host, valid) if valid is not None else ():
        with host.locked(names.lock("host-device", each.attachment)):
            problems += _give_back(each, host)
    ipam.release(req, host, rest, problems)
