"""The veth pair of an attachment: its names, and the way to find and remove it again (main sheet 1.5, 1.11)."""

from collections.abc import Iterable

import msgspec

from ipcni import names
from ipcni.errors import CniError, StepFailed
from ipcni.model import Plan
from ipcni.parts import masquerade, notes
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, Result
from ipcni.shell.render import render

_NAME_TRIES = 3


def host_end(req: Request, host: Host) -> Interface:
    """The pair's end on the node: the first name that no other attachment's link has."""
    mine = _mac(req, host)
    options = [names.host_veth(req.attachment, attempt) for attempt in range(_NAME_TRIES)]
    name = next((name for name in options if host.facts.mac(name) in (None, mine)), options[-1])
    return Interface(name=name, mac=mine)


def pod_mac(req: Request, host: Host) -> str:
    """The MAC of the pod's end where nobody asked for another one."""
    return names.mac(host.facts.machine_id(), "pod", *msgspec.structs.astuple(req.attachment))


def _mac(req: Request, host: Host) -> str:
    return names.mac(host.facts.machine_id(), "veth", *msgspec.structs.astuple(req.attachment))


def make(req: Request, host: Host, plan: Plan) -> None:
    """Does a plan that makes the pair. Raises CniError in the reference's words where the pod has such a link already."""
    try:
        host.do(plan)
    except StepFailed as failure:
        if "File exists" in failure.stderr and "veth" in failure.step.argv:
            raise CniError(
                f'container veth name ("{req.ifname}") peer provided ("{failure.step.argv[4]}") already exists',
                details=f"{req.ifname} is in {req.netns_path} already: this ADD was done before, or the name is taken",
            ) from failure
        raise


def unplug(req: Request, host: Host, *, there: bool) -> Plan:
    """Deletes the pair: by the node's end, or by the pod's where that is not ours (another suite made it) and the pod is `there`."""
    # The name and MAC that ADD noted: both are made of the machine's name, too, which may have changed since.
    name, mine, *_ = (*notes.words(req, host), "", "")
    for veth in [name] if mine else [names.host_veth(req.attachment, attempt) for attempt in range(_NAME_TRIES)]:
        if host.facts.mac(veth) == (mine or _mac(req, host)):
            return render("common/unplug.sh.j2", veth=veth)
    return render("common/unplug.sh.j2", pod=req.netns, ifname=req.ifname, veth="") if there else ()


def remove(req: Request, host: Host, *, masqueraded: bool, left: Iterable[object] = ()) -> list[CniError]:
    """The pair of an attachment, its masquerading, and the note of it, unless something is `left`. What could not be removed is returned.

    The kernel takes its time for a link: masquerading goes beside it.
    """
    there = bool(req.netns_path) and host.facts.netns_there(req.netns)
    known = addresses(req, host, there=there) if masqueraded else ()
    pair = unplug(req, host, there=there)
    left = list(left)
    if masqueraded:
        with host.beside(lambda other: left.extend(masquerade.remove(other, req.attachment, known))):
            problems: list[CniError] = list(host.do(pair, keep_going=True))
        left += host.facts.unknown
    else:
        problems = list(host.do(pair, keep_going=True))
    host.residue(left)
    if not problems and not left:
        host.do(notes.drop(req, host), keep_going=True)
    return problems


def addresses(req: Request, host: Host, *, there: bool) -> tuple[str, ...]:
    """The pod's addresses, as far as anybody knows them still: from prevResult, which a DEL may lack, or the link."""
    if prev := _previous(req):
        return tuple(ip.address.partition("/")[0] for ip in prev.ips)
    link = host.facts.link(req.ifname, req.netns) if there else None
    return tuple(address.local for address in link.addresses if address.scope == "global") if link else ()


def _previous(req: Request) -> Result | None:
    """prevResult, if it can be read: a DEL needs it for nothing it couldn't find otherwise."""
    try:
        return req.prev_result()
    except CniError:
        return None
