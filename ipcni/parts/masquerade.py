"""Source NAT of what leaves a pod's network (`ipMasq`; main sheet 1.9)."""

from ipcni import names
from ipcni.errors import CniError, StepFailed
from ipcni.model import Attachment, Family, Plan
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.ready import require_iptables, require_nft
from ipcni.protocol.result import IpConfig
from ipcni.shell.facts import Rules, iptables
from ipcni.shell.render import render

IPTABLES, NFTABLES = "iptables", "nftables"
TABLE = ("inet", "cni_plugins_masquerade")
_CHECKS = "masq_checks"
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_FAMILIES: tuple[Family, Family] = (4, 6)


def check_backend(configured: str | None) -> None:
    """Raises CniError for a backend that is none."""
    if configured not in (None, IPTABLES, NFTABLES):
        raise CniError(f'unknown ipmasq backend "{configured}"', details=f"`ipMasqBackend` is {IPTABLES} or {NFTABLES}")


def _tool(host: Host, configured: str | None) -> str:
    check_backend(configured)
    alone = configured is None and host.has("nft") and not host.has("iptables")
    return NFTABLES if alone else configured or IPTABLES


def ready(host: Host, configured: str | None) -> None:
    """Raises CniError 50 where `ensure` would find no tool."""
    if _tool(host, configured) == NFTABLES:
        require_nft(host)
    else:
        require_iptables(host, 4, "nat")


def ensure(host: Host, at: Attachment, ips: tuple[IpConfig, ...], configured: str | None) -> None:
    """Makes the rules for a pod's addresses: with the tool configured, else with iptables, else with nft where that is all there is."""
    tool = _tool(host, configured)
    with host.locked(names.masquerade_chain(at)):
        if tool == NFTABLES:
            # Rules have no name to undo them by, only the handle that the kernel gives.
            host.on_undo(lambda: host.do(_nft_delete(_tagged(host, names.masquerade_tag(at))), keep_going=True))
            host.do(_nft_add(host, at, ips))
        else:
            for family in _FAMILIES:
                mine = [ip for ip in ips if addresses.family(ip.address) == family]
                if mine and not host.attempt(_add(at, mine, family, Rules())):
                    host.do(_add(at, mine, family, host.facts.rules(family, "nat")))


def remove(host: Host, at: Attachment, known: tuple[str, ...]) -> list[StepFailed]:
    """Takes an attachment's rules away; what could not be removed is returned. `known` as for `_delete`."""
    with host.locked(names.masquerade_chain(at)):
        if known and all(_retract(host, at, known, family) for family in _FAMILIES):
            return []
        return host.do(_delete(host, at, known), keep_going=True)


def _nft_add(host: Host, at: Attachment, ips: tuple[IpConfig, ...]) -> Plan:
    return render(
        "common/masquerade-nft.sh.j2",
        stale=_tagged(host, names.masquerade_tag(at)),
        comment=f'"{names.masquerade_nft_comment(at)}"',
        ips=[(_word(ip), str(addresses.cidr(ip.address).ip), _network(ip)) for ip in ips],
    )


def _add(at: Attachment, mine: list[IpConfig], family: Family, there: Rules) -> Plan:
    chain = names.masquerade_chain(at)
    return render(
        "common/masquerade.sh.j2",
        iptables=iptables(family),
        chain=chain,
        exists=chain in there.chains,
        comment=names.masquerade_comment(at),
        multicast=_MULTICAST[family],
        networks=list(dict.fromkeys(_network(ip) for ip in mine)),
        ips=[str(addresses.cidr(ip.address).ip) for ip in mine],
    )


def _retract(host: Host, at: Attachment, known: tuple[str, ...], family: Family) -> bool:
    """Takes away what `ensure` has made for the addresses of a family, if it is there just so and nobody else's besides."""
    mine = [address for address in known if addresses.family(address) == family]
    chain, comment = names.masquerade_chain(at), names.masquerade_comment(at)
    jumps = [("-s", address, "-m", "comment", "--comment", comment, "-j", chain) for address in mine]
    return not mine or host.attempt(render("common/unmasquerade.sh.j2", iptables=iptables(family), jumps=jumps, chain=chain))


def _delete(host: Host, at: Attachment, known: tuple[str, ...]) -> Plan:
    """What takes an attachment's rules away, whichever tool made them, found by name and comment.

    `known` are the pod's addresses, if anybody knows them still: the chain is shared by all interfaces of a container in a network,
    and without addresses there is no telling whose jump is whose.
    """
    plan: Plan = ()
    chain = names.masquerade_chain(at)
    for family in _FAMILIES:
        mine = [address for address in known if addresses.family(address) == family]
        if (known and not mine) or not host.has(iptables(family)):
            continue
        there = host.facts.rules(family, "nat")
        jumps = there.jumps("POSTROUTING", chain)
        own = [jump for jump in jumps if not known or _source(jump) in mine]
        last = chain in there.chains and len(own) == len(jumps)
        plan += render("common/unmasquerade.sh.j2", iptables=iptables(family), jumps=own, chain=chain if last else "")
    return plan + _nft_delete(_tagged(host, names.masquerade_tag(at)))


def gc(host: Host, network: str, valid: frozenset[tuple[str, str]]) -> Plan:
    """What takes away the rules of a network that belong to none of the valid attachments."""
    plan: Plan = ()
    alive = {container_id for container_id, _ in valid}
    for family in _FAMILIES:
        if not host.has(iptables(family)):
            continue
        there = host.facts.rules(family, "nat")
        for chain, jumps in _stale(there, network, alive).items():
            plan += render(
                "common/unmasquerade.sh.j2",
                iptables=iptables(family),
                jumps=jumps,
                chain=chain if chain in there.chains else "",
            )
    comments = {names.masquerade_nft_comment(Attachment(network, *each)) for each in valid}
    tagged = _tagged(host, names.network_tag(network) + "-")
    return plan + _nft_delete({handle: text for handle, text in tagged.items() if text not in comments})


def _stale(there: Rules, network: str, alive: set[str]) -> dict[str, list[tuple[str, ...]]]:
    """The jumps of dead containers of the network, by chain."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for rule in there.rules:
        if rule[1] != "POSTROUTING" or rule[-2] != "-j" or "--comment" not in rule:
            continue
        comment = rule[rule.index("--comment") + 1]
        prefix = f'name: "{network}" id: "'
        if comment.startswith(prefix) and comment.removeprefix(prefix).removesuffix('"') not in alive:
            found.setdefault(rule[-1], []).append(rule[2:])
    return found


def _source(jump: tuple[str, ...]) -> str:
    return jump[jump.index("-s") + 1].partition("/")[0] if "-s" in jump else ""


def _network(ip: IpConfig) -> str:
    return str(addresses.cidr(ip.address).network)


def _word(ip: IpConfig) -> str:
    return "ip6" if addresses.family(ip.address) == 6 else "ip"


def _tagged(host: Host, tag: str) -> dict[int, str]:
    if not host.has("nft"):
        return {}
    rules = host.facts.nft_rules(*TABLE, _CHECKS) or {}
    return {handle: comment for handle, comment in rules.items() if comment.startswith(tag)}


def _nft_delete(rules: dict[int, str]) -> Plan:
    return render("common/unmasquerade-nft.sh.j2", handles=list(rules)) if rules else ()
