"""Published ports as iptables rules (meta sheet 2.4).

    PREROUTING, OUTPUT -> CNI-HOSTPORT-DNAT -> CNI-DN-<container> -> CNI-HOSTPORT-SETMARK, DNAT
    POSTROUTING -> CNI-HOSTPORT-MASQ -> MASQUERADE what is marked

Only CNI-DN-… is a container's own. Rules are written as `iptables -S` prints them, so that what is there can be compared.
"""

import msgspec

from ipcni import names
from ipcni.errors import INTERNAL, TRY_AGAIN, CniError
from ipcni.model import Attachment, Family, Plan
from ipcni.parts.portmap_conf import Flow, Ports, everything, host_prefix
from ipcni.protocol.host import Host
from ipcni.shell.facts import Facts, Rules, busy, iptables
from ipcni.shell.render import render

FAMILIES: tuple[Family, Family] = (4, 6)
_DNAT, _SETMARK, _OLD_SNAT = "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-SNAT"
_AT_MOST = 15  # ports in one multiport match


class _Line(msgspec.Struct, frozen=True):
    """One mapping, as its rules have it. An empty `destination` or source stands for any."""

    host_port: int
    transport: str
    destination: str
    target: str
    sources: tuple[str, ...]


def require(ports: list[Ports], host: Host) -> None:
    """Raises CniError where the tool for a family is missing."""
    for each in ports:
        if not host.has(tool := iptables(each.family)):
            raise CniError(
                f'failed to open iptables: exec: "{tool}": executable file not found in $PATH',
                details=f"install {tool}, or have the plugin use nft with `backend`: `nftables`",
            )


def publish(host: Host, ports: Ports) -> None:
    """The container's own chain, in one transaction; where something of the shared ones is missing, that before it."""
    shared = _shared(ports)
    # The chain of all ports is long, and needs no look: without it the transaction fails.
    around = tuple(step for step in shared if step.argv[6] != _DNAT)

    def complete(facts: Facts) -> bool:
        return not _missing(around, facts.chains(ports.family, "nat", dict.fromkeys(step.argv[6] for step in around)))

    if host.attempt(_own(ports, Rules()), given=complete):
        return
    there = _look(host, ports.family)
    own = _own(ports, there)
    if _missing(shared, there):
        with host.locked(f"chains-nat-{ports.family}"):
            host.do(_missing(shared, _look(host, ports.family)))
    host.do(own)


def _look(host: Host, family: Family) -> Rules:
    """The nat table. Raises CniError when it cannot be read: what is planned then would be wrong."""
    there = host.facts.rules(family, "nat")
    if there.fault and host.live:
        text = there.fault.err.strip() or f"exit status {there.fault.status}"
        code = TRY_AGAIN if busy(there.fault) else INTERNAL
        raise CniError(f"unable to setup DNAT: {text}", code, f"`{iptables(family)} -w 10 -t nat -S` found out nothing")
    return there


def _shared(ports: Ports) -> Plan:
    mark = ports.conf.mark if ports.conf.marks else ""
    return render("portmap/shared.sh.j2", iptables=iptables(ports.family), mark=mark)


def _missing(shared: Plan, there: Rules) -> Plan:
    """The steps whose chain or rule is not there. The question of a rule is the rule, behind `-w 10 -t nat -C`."""
    return tuple(
        step for step in shared if not (there.has("-A", *step.unless[6:]) if step.unless else step.argv[6] in there.chains)
    )


def _own(ports: Ports, there: Rules) -> Plan:
    chain = names.dnat_chain(ports.at)
    return render(
        "portmap/add.sh.j2",
        iptables=iptables(ports.family),
        chain=chain,
        exists=chain in there.chains,
        jumps=there.jumps(_DNAT, chain),
        setmark=_SETMARK if ports.conf.external_set_mark_chain is None else ports.conf.external_set_mark_chain,
        mappings=_lines(ports),
        entries=_entries(ports),
        comment=names.dnat_comment(ports.at),
        conditions=ports.conditions,
    )


def _lines(ports: Ports) -> list[_Line]:
    address = f"[{ports.address.ip}]" if ports.family == 6 else str(ports.address.ip)
    return [
        _Line(
            host_port=mapping.host_port,
            transport=mapping.transport,
            destination=host_prefix(mapping.destination) if mapping.destination else "",
            target=f"{address}:{mapping.container_port}",
            sources=_sources(ports),
        )
        for mapping in ports.mappings
    ]


def _sources(ports: Ports) -> tuple[str, ...]:
    """Whose packets are marked: those of the container's own network and, of IPv4, of the node's 127.0.0.1."""
    if not ports.conf.snat:
        return ()
    network = ports.address.network.with_prefixlen
    if ports.conf.masq_all:
        return ("",)
    first = "" if network == everything(ports.family) else network
    return (first,) if ports.family == 6 else (first, "127.0.0.1/32")


def _entries(ports: Ports) -> list[tuple[str, str]]:
    """Protocol and ports of each way in: by protocol, then in the order of the mappings, whatever their hostIP."""
    entries = []
    for protocol in sorted({mapping.protocol for mapping in ports.conf.mappings}):
        mine = [str(mapping.host_port) for mapping in ports.conf.mappings if mapping.protocol == protocol]
        groups = [mine[start : start + _AT_MOST] for start in range(0, len(mine), _AT_MOST)]
        entries += [(protocol.lower(), ",".join(group)) for group in groups]
    return entries


def _option(rule: tuple[str, ...], name: str) -> str:
    return rule[rule.index(name) + 1] if name in rule[:-1] else ""


def retract(host: Host, ports: Ports) -> bool:
    """Takes away what `publish` has made, if it is there just so."""
    chain = names.dnat_chain(ports.at)
    jumps = [step.argv[7:] for step in _own(ports, Rules()) if step.argv[5:7] == ("-A", _DNAT)]
    return host.attempt(render("portmap/del.sh.j2", iptables=iptables(ports.family), entry=_DNAT, jumps=jumps, chain=chain))


def flows(ports: Ports) -> list[Flow]:
    """The UDP ports that `publish` publishes."""
    address = str(ports.address.ip)
    return [Flow(ports.family, each.host_port, address) for each in ports.mappings if each.transport == "udp"]


def withdraw(host: Host, at: Attachment) -> tuple[Plan, list[Flow]]:
    """What takes the container's chains away, found by their names, and the UDP ports that were published."""
    plan: Plan = ()
    found: list[Flow] = []
    chain = names.dnat_chain(at)
    for family in FAMILIES:
        if not host.has(iptables(family)) or chain not in host.facts.rules(family, "nat", chain).chains:
            continue
        there = host.facts.rules(family, "nat")
        found += _flows(there, chain, family)
        plan += _removal(there, family, _DNAT, chain) + _removal(there, family, _OLD_SNAT, names.old_snat_chain(at))
    return plan, found


def _flows(there: Rules, chain: str, family: Family) -> list[Flow]:
    return [
        Flow(family, int(_option(rule, "--dport")), _option(rule, "--to-destination").rpartition(":")[0].strip("[]"))
        for rule in there.rules
        if rule[1] == chain and _option(rule, "-p") == "udp" and _option(rule, "-j") == "DNAT"
    ]


def _removal(there: Rules, family: Family, entry: str, chain: str) -> Plan:
    jumps = there.jumps(entry, chain)
    if not jumps and chain not in there.chains:
        return ()
    return render(
        "portmap/del.sh.j2",
        iptables=iptables(family),
        entry=entry,
        jumps=jumps,
        chain=chain if chain in there.chains else "",
    )


def stale(host: Host, network: str, valid: frozenset[tuple[str, str]]) -> Plan:
    """What takes away the chains of the network's containers that are no more, found by their comments."""
    alive = {names.dnat_comment(Attachment(network, *each)) for each in valid}
    plan: Plan = ()
    for family in FAMILIES:
        if not host.has(iptables(family)):
            continue
        there = host.facts.rules(family, "nat")
        chains = {
            rule[-1]: None
            for rule in there.rules
            if rule[1] == _DNAT
            and rule[-1].startswith("CNI-DN-")
            and (comment := _option(rule, "--comment")).startswith(f'dnat name: "{network}" id: "')
            and comment not in alive
        }
        for chain in chains:
            plan += _removal(there, family, _DNAT, chain)
    return plan


def verify(host: Host, ports: Ports) -> None:
    """Raises CniError for the first rule of the container that is not there: last to first, its chain before the ways in."""
    there = host.facts.rules(ports.family, "nat")
    chain = names.dnat_chain(ports.at)
    prefix = f"could not check ipv{ports.family} dnat"
    if chain not in there.chains:
        raise CniError(f"{prefix}: chain {chain} not found in iptables table nat")
    rules = [step.argv[6:] for step in _own(ports, there) if step.argv[5] == "-A"]
    for where in (chain, _DNAT):
        mine = [rule for rule in rules if rule[0] == where]
        for rule in reversed(mine):
            if not there.has("-A", *rule) and not host.facts.rule_there(ports.family, "nat", *rule):
                listed = " ".join(f"[{' '.join(each[1:])}]" for each in mine)
                raise CniError(
                    f"{prefix}: rule [{listed}] in chain {where} not found in table nat",
                    details=f"missing: {' '.join(rule[1:])}",
                )
