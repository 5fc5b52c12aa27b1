"""The pod's interface: given what a result says, and compared with it (main sheet 1.7, 1.10)."""

from collections.abc import Iterable

import msgspec

from ipcni.errors import CniError
from ipcni.model import Netns, Plan
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, IpConfig, Result, Route
from ipcni.shell.facts import Facts
from ipcni.shell.iproute import Hop, Link
from ipcni.shell.iproute import Route as KernelRoute
from ipcni.shell.render import render


class RouteLine(msgspec.Struct, frozen=True):
    """One `ip route` command's words, and the route as errors name it."""

    words: tuple[str, ...]
    title: str


def check_name(name: str) -> None:
    """Refuses names that the protocol allows and the kernel takes for a pattern. Raises CniError."""
    if "%" in name:
        raise CniError(f'"{name}" cannot be the name of an interface: the kernel replaces %', details="CNI_IFNAME")


def configure(name: str, pod: Netns, found: Result, *, settle: bool) -> Plan:
    """Addresses, link up, routes: what is in `found` for the interface `name`; raises as `addresses_up`."""
    return addresses_up(name, pod, found, settle=settle) + routes(name, pod, found)


def addresses_up(name: str, pod: Netns, found: Result, *, settle: bool) -> Plan:
    """Addresses and link up, without the routes.

    `settle` waits for duplicate address detection where there is an IPv6 gateway. Raises CniError for an address that is
    of another interface.
    """
    if not found.interfaces:
        raise CniError("no interfaces to configure")
    ips = tuple(ip for ip in found.ips if ip.interface is not None)
    for ip in ips:
        index = ip.interface or 0
        if not 0 <= index < len(found.interfaces) or found.interfaces[index].name != name:
            raise CniError(f'failed to add IP addr {ip.address} to "{name}": invalid interface index')
    return render(
        "common/configure.sh.j2",
        pod=pod,
        ifname=name,
        ips=ips,
        six=any(addresses.family(ip.address) == 6 for ip in ips),
        settle=settle and 6 in first_gateways(ips),
    )


def routes(name: str, pod: Netns, found: Result) -> Plan:
    """The routes of `found` through the interface `name`; one without a gateway takes the first address's of its family."""
    gateways = first_gateways(tuple(ip for ip in found.ips if ip.interface is not None))
    lines = [_route(each, gateways, name) for each in found.routes]
    return render("common/routes.sh.j2", pod=pod, routes=lines) if lines else ()


def first_gateways(ips: tuple[IpConfig, ...]) -> dict[int, str]:
    """The first gateway of each address family."""
    gateways: dict[int, str] = {}
    for ip in ips:
        if ip.gateway:
            gateways.setdefault(addresses.family(ip.gateway), ip.gateway)
    return gateways


def _route(each: Route, gateways: dict[int, str], name: str) -> RouteLine:
    family = addresses.family(each.dst)
    gw = each.gw or gateways.get(family, "")
    words = [each.dst, *(("via", gw) if gw else ()), "dev", name]
    if each.priority:
        words += ["metric", str(each.priority)]
    if each.table is not None:
        words += ["table", str(each.table)]
    if each.scope is not None:
        words += ["scope", str(each.scope)]
    elif not gw and family == 4:
        words += ["scope", "global"]  # iproute2 would take `link`, the reference plugins don't
    return RouteLine(tuple(words), f"{each.dst} via {gw or '<nil>'} dev {name}")


def kept(found: Iterable[KernelRoute], link: str, family: int) -> list[tuple[str, ...]]:
    """The routes through a link that the kernel drops when the link goes down, each as `again` writes it.

    One with several next hops goes when none of them is by another link.
    """
    mine = [route for route in found if {route.dev, *(hop.dev for hop in route.nexthops)} - {""} == {link}]
    return [again(route, family) for route in _made_by_people(mine)]


def dropped(found: Iterable[KernelRoute], link: str, family: int) -> list[KernelRoute]:
    """The routes that the kernel drops when a link goes for good: of IPv4 all of one with several next hops, of IPv6 the link's hops."""
    mine = []
    for route in found:
        hops = tuple(hop for hop in route.nexthops if hop.dev == link)
        if route.dev == link or hops:
            mine.append(msgspec.structs.replace(route, nexthops=hops) if family == 6 else route)
    return _made_by_people(mine)


def _made_by_people(found: list[KernelRoute]) -> list[KernelRoute]:
    """Those that the kernel has not made itself, and which no router announces. What needs no gateway comes first, for gateways
    are reached by it."""
    mine = [route for route in found if route.protocol not in ("kernel", "ra")]
    return sorted(mine, key=lambda route: bool(_via(route) or route.nexthops))


def _via(hop: KernelRoute | Hop) -> tuple[str, ...]:
    if hop.via.host:
        return ("via", hop.via.family, hop.via.host)
    return ("via", hop.gateway) if hop.gateway else ()


def again(route: KernelRoute, family: int) -> tuple[str, ...]:
    """A route as `ip route` takes it, without table, and without link where it has one next hop."""
    everywhere = "::/0" if family == 6 else "0.0.0.0/0"
    words = [*([route.type] if route.type else []), everywhere if route.dst == "default" else route.dst]
    words += [*(("tos", route.tos) if route.tos else ()), *_via(route)]
    for key, value in (("proto", route.protocol), ("scope", route.scope), ("src", route.prefsrc)):
        words += [key, value] if value else []
    words += ["metric", str(route.metric)] if route.metric else []
    words += ["pref", route.pref] if route.pref not in ("", "medium") else []
    words += ["onlink"] if "onlink" in route.flags else []
    for metrics in route.metrics:
        words += [text for key, value in msgspec.to_builtins(metrics).items() for text in (key, str(value))]
    for hop in route.nexthops:
        words += ["nexthop", *_via(hop), "dev", hop.dev, "weight", str(hop.weight)]
        words += ["onlink"] if "onlink" in hop.flags else []
    return tuple(words)


def in_result(prev: Result, req: Request) -> Interface:
    """The pod's interface in prevResult. Raises CniError in the reference's words when it isn't there."""
    for each in reversed(prev.interfaces):
        if each.name == req.ifname and each.sandbox == req.netns_path:
            return each
    raise CniError(f"Sandbox in prevResult  doesn't match configured netns: {req.netns_path}")


def check(req: Request, host: Host, prev: Result, link: Link | None) -> None:
    """The pod's link carries the addresses and routes that prevResult lists. Raises CniError for the first that it doesn't."""
    if link is None:
        raise CniError(f"Cannot find container link {req.ifname}")
    known: dict[tuple[int, str], tuple[KernelRoute, ...]] = {}

    def routes(family: int, table: int | None) -> tuple[KernelRoute, ...]:
        key = (family, str(table or "main"))
        if key not in known:
            known[key] = host.facts.routes(6 if family == 6 else 4, req.netns, key[1])
        return known[key]

    texts = {address.text for address in link.addresses}
    for ip in prev.ips:
        if ip.address not in texts:
            raise CniError(f"Failed to match addr {ip.address} on interface {req.ifname}")
        interface = addresses.cidr(ip.address)
        if interface.network.prefixlen == interface.max_prefixlen:
            continue  # a host address has no route for its network
        found = (_prefix(route.dst, interface.version) for route in routes(interface.version, None))
        if interface.network.with_prefixlen not in found:
            raise CniError(f"Failed to find Gateway {ip.gateway or '<nil>'} for interface {req.ifname}")
    for each in prev.routes:
        family = addresses.family(each.dst)
        if not any(_same(route, each, family) for route in routes(family, each.table)):
            raise CniError(
                f"Expected Route {each.dst} via {each.gw or '<nil>'} not found in routing table",
                details=f"`ip -{family} route show table {each.table or 'main'}` in {req.netns_path} has no such route",
            )


def _prefix(dst: str, family: int) -> str:
    if dst == "default":
        return "::/0" if family == 6 else "0.0.0.0/0"
    return dst if "/" in dst else f"{dst}/{128 if family == 6 else 32}"


def _same(there: KernelRoute, wanted: Route, family: int) -> bool:
    dst = _prefix(there.dst, family)
    if dst != wanted.dst:
        return False
    default = dst in ("0.0.0.0/0", "::/0")
    return default or not wanted.gw or wanted.gw in (there.gateway, *(hop.gateway for hop in there.nexthops))


def open_netns(facts: Facts, netns: Netns) -> None:
    """Raises CniError `failed to open netns …` unless it is one."""
    try:
        facts.require_netns(netns)
    except CniError as error:
        raise error.under(f'failed to open netns "{netns.path}"') from error
