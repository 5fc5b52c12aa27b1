"""sbr: what the pod sends from an address leaves by the link that has it (source based routing; meta sheet 6)."""

import ipaddress
import itertools
from collections.abc import Iterator

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Attachment, Plan
from ipcni.parts import interface
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import IpConfig, Result
from ipcni.shell.iproute import Route
from ipcni.shell.render import render

TOOLS = ("ip",)
_FIRST_TABLE = 100
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/sbr.md says what they do."""

    table: int | None = None
    gateways: tuple[str, ...] = ()
    add_source_hints: bool = False


class _Hint(msgspec.Struct, frozen=True):
    """A route to a network with an address as source; `was` is the route that it replaces, as `ip route replace` takes it."""

    network: str
    source: str
    was: tuple[str, ...] = ()


class _Rule(msgspec.Struct, frozen=True):
    source: str
    table: str
    priority: int


def _lock(req: Request) -> str:
    """Tables are numbered over all links of a container."""
    return names.lock("sbr", Attachment("", req.container_id, ""))


def add(req: Request, host: Host) -> Result:
    """A rule for each address, and without `table` a routing table each, to which the link's routes move. Passes prevResult on."""
    conf = req.config(Conf, prefix="failed to parse network configuration")
    prev = req.prev_result()
    if prev is None:
        raise CniError("This plugin must be called as chained plugin", details="sbr comes behind the plugin that makes the link")
    if not prev.ips:
        raise CniError(f"No IP addresses supplied on interface: {req.ifname}")
    if conf.table is not None and not 0 <= conf.table < 1 << 32:
        raise CniError(f"invalid table {conf.table}", details="`table` is a number from 0 to 4294967295")
    if host.live:
        interface.open_netns(host.facts, req.netns)
    mine = [ip for ip in prev.ips if _is_mine(ip, prev, req.ifname)]
    gateways = _gateways(conf.gateways) if conf.table is None else {}
    with host.locked(_lock(req)):
        if conf.table is not None:
            sources = [_host_prefix(ip) for ip in mine]
            host.do(render("sbr/rules.sh.j2", pod=req.netns, sources=sources, table=conf.table))
        elif mine:
            host.do(_own_tables(req, host, mine, gateways, hints=conf.add_source_hints))
    return prev


def _is_mine(ip: IpConfig, prev: Result, ifname: str) -> bool:
    """Whether an address is of this link, or of one that the result doesn't know."""
    index = ip.interface
    return index is None or not 0 <= index < len(prev.interfaces) or prev.interfaces[index].name == ifname


def _gateways(texts: tuple[str, ...]) -> dict[int, str]:
    """The gateways configured, by family."""
    if len(texts) > 2:
        raise CniError("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)")
    found: dict[int, str] = {}
    for text in texts:
        try:
            family = ipaddress.ip_address(text).version
        except ValueError:
            raise CniError(f"invalid static gateway IP address: {text}", details="`gateways`") from None
        if family in found:
            raise CniError(f"gateways list contains multiple IPv{family} addresses: {found[family]} and {text}")
        found[family] = text
    return found


def _host_prefix(ip: IpConfig) -> str:
    address = addresses.cidr(ip.address)
    return f"{address.ip}/{address.max_prefixlen}"


def _own_tables(req: Request, host: Host, mine: list[IpConfig], gateways: dict[int, str], *, hints: bool) -> Plan:
    if host.facts.device(req.ifname, req.netns) is None:
        raise CniError(f"Cannot find network interface {req.ifname}: Link not found")
    tables = _free_tables(req, host)
    remembered = [
        (family, route)
        for family in (4, 6)
        for route in host.facts.routes(4 if family == 4 else 6, req.netns)
        if route.dev == req.ifname and route.protocol != "ra"
    ]
    plan: Plan = ()
    for ip in mine:
        family = addresses.family(ip.address)
        gateway = gateways.get(family, ip.gateway)
        plan += render(
            "sbr/table.sh.j2",
            pod=req.netns,
            ifname=req.ifname,
            source=_host_prefix(ip),
            table=next(tables),
            gateway=gateway,
            everywhere=_EVERYWHERE[family],
            # A link's own networks first, for gateways are reached by them; the default route is added from `gateway`.
            routes=[
                interface.again(route, each)
                for each, route in sorted(remembered, key=lambda item: bool(item[1].gateway))
                if _belongs(route, ip) and not (gateway and route.dst == "default" and each == family)
            ],
        )
    left = [(each, route) for each, route in remembered if not hints or each == 6 or route.scope != "link"]
    return plan + render(
        "sbr/main.sh.j2",
        pod=req.netns,
        ifname=req.ifname,
        hints=[_hint(ip, remembered) for ip in mine] if hints else (),
        routes=[interface.again(route, each) for each, route in sorted(left, key=lambda item: not item[1].gateway)],
    )


def _hint(ip: IpConfig, remembered: list[tuple[int, Route]]) -> _Hint:
    """IPv6 keeps what has another metric; of IPv4 the first route to that network is replaced."""
    address = addresses.cidr(ip.address)
    network = str(address.network)
    was = (route for each, route in remembered if each == 4 and route.dst == network and not route.metric)
    return _Hint(network, str(address.ip), next((interface.again(route, 4) for route in was), ()))


def _free_tables(req: Request, host: Host) -> Iterator[int]:
    """The numbers from 100 on that no rule of the pod has."""
    used = {rule.table for family in (4, 6) for rule in host.facts.policies(4 if family == 4 else 6, req.netns)}
    return (number for number in itertools.count(_FIRST_TABLE) if str(number) not in used)


def _belongs(route: Route, ip: IpConfig) -> bool:
    """Whether a route's source or gateway is in the address's network, or it has neither."""
    if not route.prefsrc and not route.gateway:
        return True
    network = addresses.cidr(ip.address).network
    return any(text and ipaddress.ip_address(text) in network for text in (route.prefsrc, route.gateway))


def delete(req: Request, host: Host) -> None:
    """Removes the rules of the link's addresses, those it has and those that prevResult knows; the rest goes with the link."""
    conf = req.config(Conf, prefix="failed to parse network configuration")
    if not req.netns_path or not host.facts.netns_there(req.netns):
        return
    with host.locked(_lock(req)):
        link = host.facts.device(req.ifname, req.netns)
        sources = {each.local for each in link.addresses} if link else set()
        prev = _known(req)
        sources |= {ip.address.partition("/")[0] for ip in prev.ips if _is_mine(ip, prev, req.ifname)}
        rules = [
            _Rule(f"{rule.src}/{128 if family == 6 else 32}", rule.table, rule.priority)
            for family in (4, 6)
            for rule in (host.facts.policies(4 if family == 4 else 6, req.netns) if sources else ())
            if rule.src in sources and _in_table(rule.table, conf)
        ]
        failures = host.do(render("sbr/unrule.sh.j2", pod=req.netns, rules=rules), keep_going=True)
    if failures:
        raise failures[-1]


def _in_table(table: str, conf: Conf) -> bool:
    """Whether a rule's table is the one that is configured, or may be any: of 0 the kernel makes one of its choice."""
    return not conf.table or table == str(conf.table)


def _known(req: Request) -> Result:
    """prevResult, if it can be read: a DEL can do without."""
    try:
        return req.prev_result() or Result()
    except CniError:
        return Result()


def check(req: Request, host: Host) -> None:
    """Each address has its rule."""
    conf = req.config(Conf, prefix="failed to parse network configuration")
    prev = req.required_result()
    interface.open_netns(host.facts, req.netns)
    rules = [rule for family in (4, 6) for rule in host.facts.policies(4 if family == 4 else 6, req.netns)]
    for ip in prev.ips:
        source = ip.address.partition("/")[0]
        if _is_mine(ip, prev, req.ifname) and not any(rule.src == source and _in_table(rule.table, conf) for rule in rules):
            raise CniError(f"sbr: there is no rule for {source}", details=f"`ip rule` in {req.netns_path}")
