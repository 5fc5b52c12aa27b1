"""Pods' addresses and isolated bridges as nftables rules: what the iptables chains are (meta sheet 3.2, 3.3), in the table `inet cni_firewall`.

What one table of nftables accepts another one may still drop. So base chains of other tables that drop by policy get a jump and the
pods' rules, too. Tables of iptables and firewalld are left alone: they have back ends of their own.
"""

import re

import msgspec

from ipcni.errors import CniError
from ipcni.model import Plan
from ipcni.parts.firewall_conf import Wanted
from ipcni.protocol.host import Host
from ipcni.shell.nft import NftChain, NftRule, Ruleset
from ipcni.shell.render import render

TABLE = ("inet", "cni_firewall")
_FORWARD, _STAGE_1, _STAGE_2 = "cni_forward", "isolation_stage_1", "isolation_stage_2"
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
_PREFIX = "CNI firewall plugin rules (ingressPolicy: "
_CHAIN = re.compile(r"[a-z][a-z0-9_.]*")
_LINK = re.compile(r'[^"*\\]+')  # a quote ends the name in a rule, an asterisk stands for more than it


class _Own(msgspec.Struct, frozen=True):
    """One rule of an address, in one table."""

    family: str
    table: str
    word: str
    side: str
    address: str

    @property
    def words(self) -> tuple[str, ...]:
        """Behind `nft add rule … cni_forward`."""
        answers = ("ct", "state", "related,established") if self.side == "daddr" else ()
        return (self.word, self.side, self.address, *answers, "accept")


def require(host: Host, wanted: Wanted) -> None:
    """Raises CniError where there is no nft, or a name that it does not take."""
    if not host.has("nft"):
        raise CniError(
            'could not find nftables binary: exec: "nft": executable file not found in $PATH',
            details="install nftables, or have the plugin use iptables with `backend`: `iptables`",
        )
    _admin(wanted)
    if wanted.bridge and not _LINK.fullmatch(wanted.bridge):
        raise CniError(f"nft has no rules for a link of the name {wanted.bridge}", details="prevResult.interfaces[0].name")


def _admin(wanted: Wanted) -> str:
    """The administrator's chain as nft takes its name: CNI-ADMIN is cni_admin."""
    name = wanted.admin.lower().replace("-", "_")
    if not _CHAIN.fullmatch(name):
        raise CniError(f'nft takes no chain of the name "{name}"', details="`iptablesAdminChainName` has letters, digits and -")
    return name


def add(host: Host, wanted: Wanted, *, accept: bool = True) -> None:
    """The shared chains where something of them is missing, then what the addresses lack, in one transaction.

    Without `accept`, only the isolation of the bridge.
    """
    there = _look(host)
    if _missing(there, wanted, accept=accept):
        with host.locked("chains-nft-filter"):
            there = _look(host)
            host.do(_shared(there, wanted, accept=accept))
    if not accept:
        return
    for text in _of_iptables(there):
        host.note(text)
    new = [rule for rule in _rules(there, wanted.addresses) if not _handles(there, rule)]
    if new:
        # Rules have no name to undo them by, only the handle that the kernel gives.
        host.on_undo(lambda: host.do(_delete(_look(host), new), keep_going=True))
        host.do(render("firewall/nft-add.sh.j2", rules=new))


def _look(host: Host) -> Ruleset:
    there = host.facts.nft_ruleset()
    if there is None and host.live:
        raise CniError("cannot read the nftables ruleset", details="`nft --json --terse list ruleset` found out nothing")
    return there or {}


def _gates(there: Ruleset) -> list[tuple[str, str, str]]:
    """The base chains of other tables that drop by policy what is forwarded."""
    return [
        (*where, name)
        for where, chains in there.items()
        for name, chain in chains.items()
        if where != TABLE
        and where[0] in _FAMILIES
        and (chain.type, chain.hook, chain.policy) == ("filter", "forward", "drop")
        and not _iptables_own(where, name)
        and where[1] != "firewalld"
    ]


def _iptables_own(where: tuple[str, str], chain: str) -> bool:
    return where in (("ip", "filter"), ("ip6", "filter")) and chain == "FORWARD"


def _of_iptables(there: Ruleset) -> list[str]:
    return [
        f"chain {name} of table {' '.join(where)} drops by policy, whatever nft accepts: it is iptables', as `backend` may be"
        for where, chains in there.items()
        for name, chain in chains.items()
        if _iptables_own(where, name) and chain.policy == "drop"
    ]


def _chain(there: Ruleset, where: tuple[str, str], name: str) -> tuple[NftRule, ...]:
    return there.get(where, {}).get(name, NftChain()).rules


def _jumps(there: Ruleset, where: tuple[str, str], name: str, target: str) -> bool:
    return any(rule.jump == target for rule in _chain(there, where, name))


def _closed(there: Ruleset) -> list[tuple[str, str, str]]:
    """Those of them that have no jump to the pods' rules yet."""
    return [gate for gate in _gates(there) if not _jumps(there, gate[:2], gate[2], _FORWARD)]


def _missing(there: Ruleset, wanted: Wanted, *, accept: bool) -> dict[str, str]:
    """What of the shared chains is not there: its name in the template, and how CHECK says it."""
    found: dict[str, str] = {}
    if accept:
        if not _jumps(there, TABLE, "forward", _FORWARD):
            found["forward"] = f"expected forward rule [jump {_FORWARD}] not found"
        if not _jumps(there, TABLE, _FORWARD, _admin(wanted)):
            found["admin"] = f"expected {_FORWARD} rule [jump {_admin(wanted)}] not found"
        for family, table, chain in _closed(there):
            found[f"gate {family} {table} {chain}"] = (
                f"expected {chain} rule [jump {_FORWARD}] not found in table {family} {table}"
            )
    if not (bridge := wanted.bridge):
        return found
    first, second = _chain(there, TABLE, _STAGE_1), _chain(there, TABLE, _STAGE_2)
    if not _jumps(there, TABLE, "forward", _STAGE_1):
        found["isolation"] = f"expected forward rule [jump {_STAGE_1}] not found"
    if not any(rule.jump == _STAGE_2 and rule.matches == {"iifname": bridge} for rule in first):
        found["leaving"] = f"expected {_STAGE_1} rule [iifname {bridge} oifname != {bridge} jump {_STAGE_2}] not found"
    if wanted.strict and not any(rule.matches == {"iifname": bridge, "oifname": bridge} for rule in first):
        found["within"] = f"expected {_STAGE_1} rule [iifname {bridge} oifname {bridge} drop] not found"
    if not any(rule.matches == {"oifname": bridge} for rule in second):
        found["entering"] = f"expected {_STAGE_2} rule [oifname {bridge} drop] not found"
    return found


def _shared(there: Ruleset, wanted: Wanted, *, accept: bool) -> Plan:
    missing = _missing(there, wanted, accept=accept)
    if not missing:
        return ()
    return render(
        "firewall/nft-shared.sh.j2",
        missing=missing,
        accept=accept,
        admin=_admin(wanted),
        gates=_closed(there),
        bridge=f'"{wanted.bridge}"' if wanted.bridge else "",
        common=f'"{_PREFIX}same-bridge|isolated)"',
        comment=f'"{_PREFIX}{wanted.policy})"',
    )


def _rules(there: Ruleset, addresses: tuple[str, ...]) -> list[_Own]:
    """The rules that addresses have: two in our table, and two in each that drops."""
    tables = list(dict.fromkeys([TABLE, *(gate[:2] for gate in _gates(there))]))
    return [
        _Own(family, table, "ip6" if ":" in address else "ip", side, address)
        for family, table in tables
        for address in addresses
        if (6 if ":" in address else 4) in _FAMILIES[family]
        for side in ("daddr", "saddr")
    ]


def _handles(there: Ruleset, own: _Own) -> list[int]:
    wanted = {f"{own.word} {own.side}": own.address}
    return [rule.handle for rule in _chain(there, (own.family, own.table), _FORWARD) if rule.matches == wanted]


def _delete(there: Ruleset, rules: list[_Own]) -> Plan:
    found = [(own.family, own.table, handle) for own in rules for handle in _handles(there, own)]
    return render("firewall/nft-del.sh.j2", rules=found) if found else ()


def withdraw(host: Host, addresses: tuple[str, ...]) -> Plan:
    """What takes the rules of the addresses away, in whatever table they are."""
    if not addresses or not host.has("nft"):
        return ()
    there = host.facts.nft_ruleset() or {}
    rules = [
        _Own(*where, "ip6" if ":" in address else "ip", side, address)
        for where, chains in there.items()
        if _FORWARD in chains
        for address in addresses
        for side in ("daddr", "saddr")
    ]
    return _delete(there, rules)


def verify(host: Host, wanted: Wanted, *, accept: bool = True) -> None:
    """Raises CniError for the first rule that is not there."""
    there = _look(host)
    for text in _missing(there, wanted, accept=accept).values():
        raise CniError(text, details=f"table {' '.join(TABLE)}")
    for own in _rules(there, wanted.addresses) if accept else ():
        if not _handles(there, own):
            raise CniError(f"expected rule [{' '.join(own.words)}] not found", details=f"table {own.family} {own.table}")
