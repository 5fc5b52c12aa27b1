"""ptp: a veth pair whose end on the node is the pod's gateway; no bridge (main sheet 3)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.parts import interface, ipam, masquerade, notes, veth
from ipcni.parts.ipam import DnsConf, Ipam
from ipcni.protocol import address as addresses
from ipcni.protocol import delegate
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, IpConfig, Result
from ipcni.shell.render import render

TOOLS = ("ip",)
LINKS = ("veth",)
BACKENDS = ("iptables", "nftables")
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/ptp.md says what they do."""

    mtu: int = 0
    ip_masq: bool = False
    ip_masq_backend: str | None = None
    ipam: Ipam = Ipam()
    dns: DnsConf = DnsConf()


class Way(msgspec.Struct, frozen=True):
    """How a pod with this address reaches its network: by the gateway. All without prefix length but `network`."""

    address: str
    network: str
    gateway: str

    @property
    def to_address(self) -> str:
        """The address as the destination of a route."""
        return _host_prefix(self.address)

    @property
    def to_gateway(self) -> str:
        """The gateway as the destination of a route."""
        return _host_prefix(self.gateway)


def add(req: Request, host: Host) -> Result:
    """Lease, veth pair, addresses, routes, masquerading, in this order."""
    conf = req.config(Conf)
    delegate.find(conf.ipam.type, req.path)  # without IPAM there is nothing to do
    interface.check_name(req.ifname)
    if conf.ip_masq:
        masquerade.check_backend(conf.ip_masq_backend)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("ptp", req.attachment)):
        return _add(req, host, conf)


def _add(req: Request, host: Host, conf: Conf) -> Result:
    lease = ipam.lease(req, host, conf.ipam.type)
    ways = tuple(_way(ip) for ip in lease.ips)
    end = veth.host_end(req, host)
    pod = Interface(name=req.ifname, mac=veth.pod_mac(req, host), sandbox=req.netns_path)
    ips = tuple(msgspec.structs.replace(ip, interface=1) for ip in lease.ips)
    found = Result(interfaces=(end, pod), ips=ips, routes=lease.routes, dns=conf.dns.over(lease.dns))
    plan = notes.take(req, host, end.name, end.mac) + _link(req, host, conf, found, ways)
    plan += interface.addresses_up(req.ifname, req.netns, found, settle=True)
    plan += _to_gateways(req, ways)
    plan += interface.routes(req.ifname, req.netns, found)
    plan += _to_networks(req, ways)
    if conf.ip_masq:
        with host.beside(lambda other: masquerade.ensure(other, req.attachment, found.ips, conf.ip_masq_backend)):
            veth.make(req, host, plan)
    else:
        veth.make(req, host, plan)
    return found


def _way(ip: IpConfig) -> Way:
    """Raises CniError for an address with which the pod would reach nobody."""
    address = addresses.cidr(ip.address)
    if not ip.gateway or addresses.family(ip.gateway) != address.version:
        raise CniError(
            f"address {ip.address} has no gateway",
            details="ptp gives the gateway's address to the node's end of the link: have IPAM name one (`gateway`)",
        )
    if address.network.prefixlen == address.max_prefixlen:
        raise CniError(
            f"address {ip.address} has no network around it",
            details=f"ptp routes the pod's network through the node: use a prefix shorter than /{address.max_prefixlen}",
        )
    return Way(str(address.ip), str(address.network), ip.gateway)


def _host_prefix(address: str) -> str:
    return f"{address}/{128 if addresses.family(address) == 6 else 32}"


def _link(req: Request, host: Host, conf: Conf, found: Result, ways: tuple[Way, ...]) -> Plan:
    """The pair and all of the node's side of it."""
    end, pod = found.interfaces
    wanted = [_FORWARDING[family] for family in sorted({addresses.family(way.address) for way in ways})]
    return render(
        "ptp/link.sh.j2",
        veth=end.name,
        mac=end.mac,
        mtu=max(conf.mtu, 0),
        ifname=req.ifname,
        pod_mac=pod.mac,
        netns=req.netns.name or req.netns.path,
        switches=[switch for switch in wanted if host.facts.sysctl(switch) != "1"],
        gateways=list(dict.fromkeys(way.to_gateway for way in ways)),
        addresses=[way.to_address for way in ways],
    )


def _to_gateways(req: Request, ways: tuple[Way, ...]) -> Plan:
    """The pod's routes to gateways, one to each even where addresses share it. Other routes need them."""
    gateways = {way.to_gateway: way.address for way in reversed(ways)}
    return render("ptp/gateways.sh.j2", pod=req.netns, ifname=req.ifname, gateways=list(gateways.items())[::-1])


def _to_networks(req: Request, ways: tuple[Way, ...]) -> Plan:
    """The pod's routes to its own networks. They come last: a route by a neighbour is only taken while neighbours are on the link."""
    networks = {way.network: way for way in reversed(ways)}
    return render("ptp/networks.sh.j2", pod=req.netns, ifname=req.ifname, ways=list(networks.values())[::-1])


def delete(req: Request, host: Host) -> None:
    """Removes link, masquerading and lease; what is gone already is fine, with or without a namespace.

    Everything is tried; the first thing that could not be removed is raised at the end.
    """
    conf = req.config(Conf)
    with host.locked(names.lock("ptp", req.attachment)):
        problems = veth.remove(req, host, masqueraded=conf.ip_masq)
        ipam.release(req, host, conf.ipam.type, problems)


def check(req: Request, host: Host) -> None:
    """The pod's end, its addresses and routes are as prevResult says, and the lease is there."""
    conf = req.config(Conf)
    interface.open_netns(host.facts, req.netns)
    delegate.call(req, host, conf.ipam.type)
    try:
        prev = req.required_result()
    except CniError as error:
        raise error.under("ptp") from error
    mine = interface.in_result(prev, req)
    link = host.facts.link(req.ifname, req.netns)
    if link is None:
        raise CniError(f"ptp: Container Interface name in prevResult: {req.ifname} not found")
    if link.kind != "veth":
        raise CniError(f"Error: Container interface {req.ifname} not of type veth/p2p")
    if mine.mac and mine.mac.lower() != link.mac:
        raise CniError(f"ptp: Interface {req.ifname} Mac {mine.mac} doesn't match container Mac: {link.mac}")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """The node has what masquerading needs, if it is asked for, and the IPAM plugin is ready."""
    conf = req.config(Conf)
    if conf.ip_masq:
        masquerade.ready(host, conf.ip_masq_backend)
    delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Removes links and rules of attachments that are no more, and has IPAM do the same for leases. All is tried."""
    conf = req.config(Conf)
    valid = req.valid_attachments()
    problems: list[CniError] = []
    for each in notes.stale(req, host, valid) if valid is not None else ():
        with host.locked(names.lock("ptp", each.attachment)):
            problems += veth.remove(each, host, masqueraded=conf.ip_masq)
    if valid is not None:
        problems += host.do(masquerade.gc(host, req.network, valid), keep_going=True)
    ipam.release(req, host, conf.ipam.type, problems)
