"""A link that is the pod's alone: made in its namespace, and gone with it (main sheet 4 to 6, 9, 10)."""

from collections.abc import Iterable

import msgspec

from ipcni import names
from ipcni.errors import NOT_AVAILABLE, CniError
from ipcni.model import Netns, Plan
from ipcni.parts import interface, ipam, veth
from ipcni.protocol import address as addresses
from ipcni.protocol import args, delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Interface, Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render


class Mac(msgspec.Struct, frozen=True):
    """The part of `runtimeConfig` that says which MAC the pod is to have."""

    mac: str = ""


def asked_mac(req: Request, configured: str, runtime: Mac) -> str:
    """The MAC that somebody wants, or the empty text; raises CniError for one that is none."""
    wanted = runtime.mac or args.parse(req.args, "MAC").get("MAC", "") or configured
    if not wanted:
        return ""
    try:
        return addresses.mac(wanted)
    except CniError as error:
        raise error.under(f"invalid args {wanted} for MAC addr") from error


def master(req: Request, host: Host, name: str, *, inside: bool) -> Link:
    """The link to make another one on: the one of that name, or the default route's; `inside` the pod's namespace.

    Raises CniError in the reference's words where there is none.
    """
    netns = req.netns if inside else None
    name = name or _default(host, netns)
    link = host.facts.device(name, netns) or host.facts.link(name, netns)
    if link is None:
        where = f"in {req.netns_path}" if inside else "on the node"
        raise CniError(
            f'failed to lookup master "{name}": Link not found', details=f"there is no link {name} {where}: see `master`"
        )
    return link


def require_master(req: Request, host: Host, name: str) -> None:
    """For STATUS: raises CniError 50 where `master` finds none on the node."""
    try:
        master(req, host, name, inside=False)
    except CniError as error:
        raise CniError(error.msg, NOT_AVAILABLE, error.details) from error


def _default(host: Host, netns: Netns | None) -> str:
    """The link of the first default route, IPv4 before IPv6."""
    for family in (4, 6):
        for route in host.facts.routes(4 if family == 4 else 6, netns):
            if route.dst == "default" and (route.dev or route.nexthops):
                return route.dev or route.nexthops[0].dev
    raise CniError("no default route interface found", details="name the link to make this one on with `master`")


def check_mtu(mtu: int, above: Link) -> None:
    """Raises CniError for an MTU that the master cannot carry."""
    if not 0 <= mtu <= above.mtu:
        raise CniError(f"invalid MTU {mtu}, must be [0, master MTU({above.mtu})]", details="`mtu`; 0 is the master's own")


def temporary(req: Request) -> str:
    """The name of a link until it is called what the runtime wants, which something on the node may be called, too."""
    return names.host_veth(req.attachment)


def mac(req: Request, host: Host) -> str:
    """The MAC of a link for which nobody wants another one."""
    return veth.pod_mac(req, host)


def notify(req: Request, *, six: bool = True) -> Plan:
    """Has the link announce its addresses when it comes up."""
    return render("common/notify.sh.j2", pod=req.netns, ifname=req.ifname, six=six)


def attach(
    req: Request,
    host: Host,
    make: Plan,
    mac: str,
    lease: Result | None,
    plugin: str,
    dns: Dns | None,
    notify: Plan = (),
    *,
    settle: bool = True,
) -> Result:
    """The rest of an ADD: the link by `make`, its lease if there is none yet, addresses, and up.

    `plugin` is the IPAM's name or empty; `dns` None stands for the IPAM's own.
    """
    pod = Interface(name=req.ifname, mac=mac, sandbox=req.netns_path)
    if lease is None and plugin:
        host.do(make)
        make = ()
        lease = ipam.lease(req, host, plugin)
    given = lease or Result()
    ips = tuple(msgspec.structs.replace(ip, interface=0) for ip in given.ips)
    found = Result(interfaces=(pod,), ips=ips, routes=given.routes, dns=given.dns if dns is None else dns)
    if found.ips:
        plan = notify + interface.configure(req.ifname, req.netns, found, settle=settle)
    else:
        plan = render("common/up.sh.j2", pod=req.netns, ifname=req.ifname)
    host.do(make + plan)
    return found


def early_lease(req: Request, host: Host, plugin: str) -> Result | None:
    """The lease, where it can be had before there is a link: what fails then leaves no link behind."""
    return ipam.lease(req, host, plugin) if plugin and ipam.in_process(req, plugin) else None


def delete(req: Request, host: Host, plugin: str, *, renamed: bool = True) -> None:
    """Removes the link and has the IPAM plugin, if any, release; what is gone already is fine. All is tried.

    `renamed` tells whether ADD makes the link by another name, which one that was killed may have left.
    """
    with host.locked(names.lock(req.plugin, req.attachment)):
        problems: list[CniError] = []
        plugin = ipam.release_by_link(req, host, plugin, problems)
        if req.netns_path and host.facts.netns_there(req.netns):
            half = temporary(req) if renamed and host.facts.device(temporary(req), req.netns) else ""
            plan = render("common/unmake.sh.j2", pod=req.netns, ifname=req.ifname, temporary=half)
            problems += host.do(plan, keep_going=True)
        ipam.release(req, host, plugin, problems)


def check(req: Request, host: Host, plugin: str, kind: str) -> tuple[Result, Link]:
    """What all CHECKs of such links begin with: the lease, prevResult and a link of this kind and MAC. Raises CniError for the first that isn't so."""
    interface.open_netns(host.facts, req.netns)
    if plugin:
        delegate.call(req, host, plugin)
    prev = req.required_result()
    mine = interface.in_result(prev, req)
    link = host.facts.link(req.ifname, req.netns)
    if link is None:
        raise CniError(f"container Interface name in prevResult: {req.ifname} not found")
    if kind and link.kind != kind:
        raise CniError(
            f"Error: Container interface {req.ifname} not of type {kind}", details=f"it is a {link.kind or 'physical'} link"
        )
    if kind and mine.mac and mine.mac.lower() != link.mac:
        raise CniError(f"{req.plugin}: Interface {req.ifname} Mac {mine.mac} doesn't match container Mac: {link.mac}")
    return prev, link


def one_of(value: str, allowed: Iterable[str], title: str) -> str:
    """The value, or the first of `allowed` for the empty text. Raises CniError for another one."""
    options = tuple(allowed)
    if value and value not in options:
        raise CniError(f'unknown {title}: "{value}"', details=f"`mode` is one of {', '.join(options)}")
    return value or options[0]
