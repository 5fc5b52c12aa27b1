"""bridge: a veth pair between the pod and a bridge of the node (main sheet 2)."""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.parts import bridge_check, bridge_link, bridge_vlan, interface, ipam, macspoof, masquerade, notes, veth
from ipcni.parts.bridge_link import Conf
from ipcni.protocol import address as addresses
from ipcni.protocol import args, delegate, ready
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Interface, Result, Route
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

TOOLS = ("ip",)
LINKS = ("bridge", "veth")
BACKENDS = ("iptables", "nftables")


def _load(req: Request) -> tuple[Conf, str]:
    """The configuration and the MAC somebody asked for."""
    conf = req.config(Conf)
    if not 0 <= conf.vlan <= 4094:
        raise CniError(f"invalid VLAN ID {conf.vlan} (must be between 0 and 4094)")
    _ = conf.trunk  # raises for a range that is none
    asked = args.parse(req.args, "MAC").get("MAC", "")
    return conf, conf.runtime_config.mac or conf.args.cni.mac or asked


def add(req: Request, host: Host) -> Result:
    """Bridge, veth pair, addresses, masquerading, in this order."""
    conf, mac = _load(req)
    if conf.hairpin_mode and conf.promisc_mode:
        raise CniError("cannot set hairpin mode and promiscuous mode at the same time")
    if conf.ipam.type and conf.disable_container_interface:
        raise CniError("cannot use IPAM when DisableContainerInterface flag is set")
    ipam.check_version(req, conf.ipam.type)
    bridge_link.check_name(conf.bridge)
    interface.check_name(req.ifname)
    if conf.macspoofchk:
        macspoof.check_name(req.attachment)
    if conf.ip_masq and conf.ipam.type:
        masquerade.check_backend(conf.ip_masq_backend)
    try:
        mac = addresses.mac(mac) if mac else veth.pod_mac(req, host)
    except CniError as error:
        raise error.under("failed to make veth pair") from error
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("bridge", req.attachment)):
        return _add(req, host, conf, mac)


def _add(req: Request, host: Host, conf: Conf, mac: str) -> Result:
    lease = Result()
    early = bool(conf.ipam.type) and ipam.in_process(req, conf.ipam.type)
    if early:
        lease = ipam.lease(req, host, conf.ipam.type)
    bridge = bridge_link.ensure(conf, host)
    end = veth.host_end(req, host)
    plan = notes.take(req, host, end.name, end.mac) + _port(req, conf, bridge, end, mac)
    if conf.ipam.type and not early:
        veth.make(req, host, plan)
        plan = ()
        lease = ipam.lease(req, host, conf.ipam.type)
    pod = Interface(name=req.ifname, mac=mac, sandbox=req.netns_path)
    found = _complete(conf, lease, (Interface(name=bridge.name, mac=bridge.mac), end, pod))
    if conf.gateway and found.ips:
        home = bridge
        if conf.vlan:
            home = bridge_vlan.gateway(host, bridge, conf.vlan, preserve=conf.preserve_default_vlan)
            vlan_link = Interface(name=home.name, mac=home.mac)
            found = msgspec.structs.replace(found, interfaces=(*found.interfaces, vlan_link))
        bridge_link.ensure_gateways(conf, host, home, found)
    if conf.macspoofchk:
        veth.make(req, host, plan)  # an ADD that fails here, for the pod's being there, must not undo that pod's spoof check
        plan = ()
        host.do(macspoof.add(host, req.attachment, end.name, mac))
    plan += _node_settings(conf, host, found, end.name) + _pod(req, conf, found, end.name)
    if conf.ip_masq and found.ips:
        with host.beside(lambda other: masquerade.ensure(other, req.attachment, found.ips, conf.ip_masq_backend)):
            veth.make(req, host, plan)
    else:
        veth.make(req, host, plan)
    return _settled(host, found, bridge)


# -- the pod's own part


def _port(req: Request, conf: Conf, bridge: Link, end: Interface, mac: str) -> Plan:
    """The veth pair, plugged in."""
    plan = render(
        "bridge/port.sh.j2",
        veth=end.name,
        mac=end.mac,
        mtu=max(conf.mtu, 0),
        ifname=req.ifname,
        pod_mac=mac,
        netns=req.netns.name or req.netns.path,
        bridge=conf.bridge,
        hairpin="on" if conf.hairpin_mode else "off",
        isolated="on" if conf.port_isolation else "off",
    )
    return plan + bridge_vlan.port(end.name, bridge, conf.vlan, conf.trunk, preserve=conf.preserve_default_vlan)


def _complete(conf: Conf, lease: Result, links: tuple[Interface, ...]) -> Result:
    """The lease as the result of this attachment: gateways worked out, default routes added."""
    ips = []
    for ip in lease.ips:
        gateway = ip.gateway or (_first_of_network(ip.address) if conf.gateway else "")
        ips.append(msgspec.structs.replace(ip, interface=2, gateway=gateway))
    routes = list(lease.routes)
    if conf.is_default_gateway:
        for family, gateway in interface.first_gateways(tuple(ips)).items():
            everywhere = "::/0" if family == 6 else "0.0.0.0/0"
            if not any(route.dst == everywhere for route in routes):
                routes.append(Route(dst=everywhere, gw=gateway))
    return Result(interfaces=links, ips=tuple(ips), routes=tuple(routes), dns=conf.dns.over(lease.dns))


def _first_of_network(address: str) -> str:
    """Where a gateway is that nobody has named. Raises CniError for the very last address, which has none behind it."""
    try:
        return str(addresses.cidr(address).network.network_address + 1)
    except ValueError:
        raise CniError(f"address {address} has no gateway", details="have IPAM name one (`gateway`)") from None


def _node_settings(conf: Conf, host: Host, found: Result, veth: str) -> Plan:
    """Kernel settings of the node: none for the port, and forwarding where the node is the pods' gateway."""
    wanted = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
    families = {addresses.family(ip.address) for ip in found.ips} if conf.gateway else set()
    switches = [wanted[family] for family in sorted(families) if host.facts.sysctl(wanted[family]) != "1"]
    return render("bridge/node.sh.j2", veth=veth, switches=switches)


def _pod(req: Request, conf: Conf, found: Result, veth: str) -> Plan:
    """The pod's end, and the moment from which the bridge forwards for it."""
    if conf.disable_container_interface:
        return ()
    plan: Plan = ()
    if found.ips:
        plan += render("bridge/pod.sh.j2", pod=req.netns, ifname=req.ifname, dad=conf.enabledad)
        plan += interface.configure(req.ifname, req.netns, found, settle=conf.enabledad)
    else:
        plan += render("common/up.sh.j2", pod=req.netns, ifname=req.ifname)
    return plan + render("bridge/wait.sh.j2", veth=veth)


def _settled(host: Host, found: Result, bridge: Link) -> Result:
    """The result with the bridge's MAC as it is now: one that is not ours may have followed the new port."""
    if bridge.mac == names.mac(host.facts.machine_id(), "bridge", bridge.name):
        return found
    now = host.facts.bridge(bridge.name) or bridge
    first = msgspec.structs.replace(found.interfaces[0], mac=now.mac)
    return msgspec.structs.replace(found, interfaces=(first, *found.interfaces[1:]))


# -- the way back


def delete(req: Request, host: Host) -> None:
    """Removes link, lease, spoof check and masquerading; what is gone already is fine, with or without a namespace.

    Everything is tried; the first thing that could not be removed is raised at the end.
    """
    conf, _ = _load(req)
    with host.locked(names.lock("bridge", req.attachment)):
        problems: list[CniError] = []
        rest = ipam.release_by_link(req, host, conf.ipam.type, problems)
        problems += _remove(req, host, conf)
        ipam.release(req, host, rest, problems)


def _remove(req: Request, host: Host, conf: Conf) -> list[CniError]:
    """All that is there of an attachment but its lease, and what of that could not be removed."""
    left = host.do(macspoof.delete(host, req.attachment), keep_going=True) if conf.macspoofchk else ()
    return veth.remove(req, host, masqueraded=conf.ip_masq, left=left)


def check(req: Request, host: Host) -> None:
    """Bridge, veth pair, addresses and routes are as prevResult says, and the lease is there."""
    conf, _ = _load(req)
    interface.open_netns(host.facts, req.netns)
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)
    bridge_check.check(req, host, conf.bridge, promisc=conf.promisc_mode)


def status(req: Request, host: Host) -> None:
    """The node has what this configuration needs, and the IPAM plugin is ready, if there is one."""
    conf, _ = _load(req)
    if conf.vlan or conf.trunk:
        ready.require(host, tools=("bridge",), links=("bridge vlan_filtering 1",))
    if conf.macspoofchk:
        ready.require_nft(host)
    if conf.ip_masq:
        masquerade.ready(host, conf.ip_masq_backend)
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Removes links and rules of attachments that are no more, and has IPAM do the same for leases. All is tried."""
    conf = req.config(Conf)
    valid = req.valid_attachments()
    problems: list[CniError] = []
    rest = ipam.release_by_link(req, host, conf.ipam.type, problems)
    for each in notes.stale(req, host, valid) if valid is not None else ():
        with host.locked(names.lock("bridge", each.attachment)):
            problems += _remove(each, host, conf)
    if valid is not None:
        problems += host.do(masquerade.gc(host, req.network, valid), keep_going=True)
    ipam.release(req, host, rest, problems)
