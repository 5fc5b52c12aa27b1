"""portmap: ports of the node that lead to a container (meta sheet 2)."""

import contextlib

from ipcni import names
from ipcni.errors import CniError
from ipcni.model import Attachment, Plan
from ipcni.parts import claims, notes, portmap_iptables, portmap_nft
from ipcni.parts.portmap_conf import IPTABLES, NFTABLES, Conf, Flow, Ports, automatic, load, published
from ipcni.protocol import address as addresses
from ipcni.protocol import ready
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.shell.render import render

BACKENDS = (IPTABLES, NFTABLES)


def _lock(req: Request) -> str:
    """Rules are a container's in a network, so they are for all its interfaces there."""
    return names.lock("portmap", Attachment(req.network, req.container_id, ""))


def add(req: Request, host: Host) -> Result:
    """Rules for the container's first address of each family; the answer is prevResult."""
    try:
        conf, prev, backend = load(req, host)
    except CniError as error:
        raise error.under("failed to parse config") from error
    if prev is None:
        raise CniError("must be called as chained plugin", details="portmap stands behind the plugin that makes the interface")
    if not conf.mappings:
        return prev
    ports = published(req, conf, prev)
    for each in ports:
        _ = [mapping.destination for mapping in each.mappings]  # raises for what is no address, before anything is done
    if backend == NFTABLES:
        portmap_nft.require(host)
    else:
        portmap_iptables.require(ports, host)
    with host.locked(_lock(req)):
        first = not notes.words(req, host)
        if backend == NFTABLES:  # whose rules do not tell their network
            host.do(notes.take(req, host, *(str(each.address.ip) for each in ports)))
        for each in ports:
            if backend == NFTABLES:
                portmap_nft.publish(host, each, first=first)
            else:
                portmap_iptables.publish(host, each)
            host.do(claims.stake(host, each))
            # Best effort: the tool may be missing, and the rules are right without it.
            host.do(_forget(_stale_flows(each)), keep_going=True)
            host.do(_localnet(host, each, prev))
    return prev


def _stale_flows(ports: Ports) -> list[Flow]:
    return [Flow(ports.family, mapping.host_port) for mapping in ports.conf.mappings if mapping.transport == "udp"]


def _forget(flows: list[Flow]) -> Plan:
    return render("portmap/conntrack.sh.j2", flows=list(dict.fromkeys(flows))) if flows else ()


def _localnet(host: Host, ports: Ports, prev: Result) -> Plan:
    """Lets the node's 127.0.0.1 out by the link that leads to the container."""
    if ports.family == 6 or not ports.conf.snat:
        return ()
    link = _way(host, ports, prev)
    if link is None or host.facts.sysctl(f"net/ipv4/conf/{link}/route_localnet") == "1":
        return ()
    return render("portmap/localnet.sh.j2", link=link)


def _way(host: Host, ports: Ports, prev: Result) -> str | None:
    if not host.live:  # the link may be one that the script has yet to make
        ahead = [link.name for link in prev.interfaces if not link.sandbox and host.facts.mac(link.name) is None]
        if ahead:
            return ahead[0]
    for each in prev.interfaces:
        bridge = host.facts.bridge(each.name) if not each.sandbox else None
        if bridge and any(ports.address.ip in addresses.cidr(there.text).network for there in bridge.addresses):
            return bridge.name
    return host.facts.route_dev(str(ports.address.ip), 4)


def delete(req: Request, host: Host) -> None:
    """Takes away what is there, with or without mappings in the configuration, and keeps on record what could not be.

    It never fails for what it finds: a runtime stops at the first DEL that does, and then the container's address is never released.
    A configuration that ADD refuses has made nothing, so that is no reason to fail either.
    """
    conf = Conf()
    with contextlib.suppress(CniError):
        conf = req.config(Conf)
    backend = conf.backend if conf.backend in (IPTABLES, NFTABLES) else automatic(host)
    known: set[str] = set()
    ports: list[Ports] = []
    with contextlib.suppress(CniError):
        if prev := req.prev_result():
            known = {ip.address.partition("/")[0] for ip in prev.ips}
            ports = published(req, conf, prev) if conf.mappings else []
    other = NFTABLES if backend == IPTABLES else IPTABLES
    with host.locked(_lock(req)):
        if backend == IPTABLES and ports and all(portmap_iptables.retract(host, each) for each in ports):
            plan: Plan = ()
            flows = [flow for each in ports for flow in portmap_iptables.flows(each)]
        else:
            plan, flows = _withdraw(req, host, backend, known)
            if not plan and conf.mappings:  # were they made before `backend` was changed?
                plan, flows = _withdraw(req, host, other, known)
        left = [*host.do(plan, keep_going=True), *host.facts.unknown]
        host.residue(left)
        gone = notes.drop(req, host) + claims.drop(host, req.attachment, ports)
        host.do(_forget(flows) + (() if left else gone), keep_going=True)


def _withdraw(req: Request, host: Host, backend: str, known: set[str]) -> tuple[Plan, list[Flow]]:
    if backend == NFTABLES:
        return portmap_nft.withdraw(host, req.attachment, known)
    return portmap_iptables.withdraw(host, req.attachment)


def check(req: Request, host: Host) -> None:
    """Every rule of the container is there."""
    conf, _, backend = load(req, host)
    prev = req.required_result()
    for ports in published(req, conf, prev) if conf.mappings else ():
        if backend == NFTABLES:
            portmap_nft.verify(host, ports)
        else:
            portmap_iptables.verify(host, ports)


def gc(req: Request, host: Host) -> None:
    """Takes away the rules of containers that are no more. All is tried."""
    valid = req.valid_attachments()
    if valid is None:
        return
    failures = host.do(portmap_iptables.stale(host, req.network, valid) + claims.stale(host, req.network, valid), keep_going=True)
    for each in notes.stale(req, host, valid):
        with host.locked(_lock(each)):
            plan, flows = portmap_nft.withdraw(host, each.attachment, set(notes.words(each, host)))
            failures += host.do(plan + _forget(flows) + notes.drop(each, host), keep_going=True)
    if failures:
        raise failures[0]


def status(req: Request, host: Host) -> None:
    """There is a tool to make rules with."""
    _, _, backend = load(req, host)
    if backend == NFTABLES:
        ready.require_nft(host)
    else:
        ready.require_iptables(host, 4, "nat")
