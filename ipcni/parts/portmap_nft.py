"""Published ports as nftables rules (meta sheet 2.5), in a table that all containers share. A container's rules are found by their comment, its id."""

from ipcni.errors import CniError
from ipcni.model import Attachment, Family, Plan
from ipcni.parts.portmap_conf import Flow, Ports, everything, word
from ipcni.protocol import address as cidr
from ipcni.protocol.host import Host
from ipcni.shell.nft import NftRule
from ipcni.shell.render import render

TABLE = "cni_hostport"
FAMILIES: tuple[Family, Family] = (4, 6)
_HOSTPORTS, _MASQUERADING = "hostports", "masquerading"
# Versions before 1.9.0 had rules with a hostIP in a chain of their own.
_CHAINS = (_HOSTPORTS, "hostip_hostports", _MASQUERADING)

Table = dict[str, tuple[NftRule, ...]]


def require(host: Host) -> None:
    """Raises CniError where there is no nft."""
    if not host.has("nft"):
        raise CniError(
            "unable to set up nftables rules for port mappings: "
            'could not find nftables binary: exec: "nft": executable file not found in $PATH',
            details="install nftables, or have the plugin use iptables with `backend`: `iptables`",
        )


def publish(host: Host, ports: Ports, *, first: bool) -> None:
    """Table, chains and the container's rules, in one transaction. The `first` time there is nothing of the container to replace."""
    there = {} if first else _table(host, ports.family, ports.at)
    address = str(ports.address.ip)
    # Rules have no name to undo them by, only the handle that the kernel gives.
    host.on_undo(lambda: host.do(_delete(ports.family, _own(_table(host, ports.family, ports.at), {address})), keep_going=True))
    host.do(
        render(
            "portmap/nft-add.sh.j2",
            ip=word(ports.family),
            address=address,
            comment=f'"{ports.at.container_id}"',
            conditions=ports.conditions,
            sources=_sources(ports),
            stale=_handles(_own(there, {address})),
            mappings=[
                {
                    "host_port": mapping.host_port,
                    "transport": mapping.transport,
                    "destination": mapping.destination,
                    "target": f"{f'[{address}]' if ports.family == 6 else address}:{mapping.container_port}",
                }
                for mapping in ports.mappings
            ],
        )
    )


def _table(host: Host, family: Family, at: Attachment) -> Table:
    """The container's rules, on whatever network it has them."""
    return host.facts.nft_table(word(family), TABLE, at.container_id) or {}


def _sources(ports: Ports) -> list[str]:
    """Whose packets to the container get the node's address."""
    if not ports.conf.snat:
        return []
    if ports.conf.masq_all:
        return [everything(ports.family)]
    own = str(ports.address.ip)
    return [own] if ports.family == 6 else [own, "127.0.0.1"]


def _own(there: Table, addresses: set[str]) -> Table:
    """The rules that lead to one of the addresses, if there are any: on another network the container has the same comment."""
    return {
        chain: tuple(rule for rule in there.get(chain, ()) if not addresses or _leads_to(rule) in addresses) for chain in _CHAINS
    }


def _leads_to(rule: NftRule) -> str:
    return rule.dnat or rule.matches.get("ip daddr", "") or rule.matches.get("ip6 daddr", "")


def _handles(rules: Table) -> list[tuple[str, int]]:
    return [(chain, rule.handle) for chain in rules for rule in rules[chain]]


def _delete(family: Family, rules: Table) -> Plan:
    handles = _handles(rules)
    return render("portmap/nft-del.sh.j2", ip=word(family), rules=handles) if handles else ()


def withdraw(host: Host, at: Attachment, addresses: set[str]) -> tuple[Plan, list[Flow]]:
    """What takes the container's rules away, and the UDP ports that were published.

    `addresses` are those of prevResult, if there was one. Without it the rules of a container on all networks go, as in the reference.
    """
    plan: Plan = ()
    flows: list[Flow] = []
    families = {cidr.family(each) for each in addresses} or FAMILIES
    for family in sorted(families) if host.has("nft") else ():
        mine = _own(_table(host, family, at), addresses)
        flows += [
            Flow(family, int(port), rule.dnat)
            for chain in mine
            for rule in mine[chain]
            if rule.dnat and (port := rule.matches.get("udp dport"))
        ]
        plan += _delete(family, mine)
    return plan, flows


def verify(host: Host, ports: Ports) -> None:
    """Raises CniError where there are fewer rules of the container than there should be."""
    mine = _own(_table(host, ports.family, ports.at), {str(ports.address.ip)})
    for chain, wanted in ((_HOSTPORTS, len(ports.mappings)), (_MASQUERADING, len(_sources(ports)))):
        if len(mine[chain]) < wanted:
            raise CniError(
                f'missing hostport rules in "{chain}" chain',
                details=f"{len(mine[chain])} of {wanted} in table {word(ports.family)} {TABLE}",
            )
