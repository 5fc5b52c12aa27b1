"""Pods' addresses and isolated bridges as iptables rules (meta sheet 3.2, 3.3), written as `iptables -S` prints them.

FORWARD -> CNI-ISOLATION-STAGE-1 -> CNI-ISOLATION-STAGE-2, then FORWARD -> CNI-FORWARD -> the administrator's chain. Only two rules of
an address, in CNI-FORWARD, are a pod's own.
"""

from ipcni.errors import INTERNAL, TRY_AGAIN, CniError
from ipcni.model import Family, Plan, Step
from ipcni.parts.firewall_conf import FAMILIES, Wanted
from ipcni.parts.firewall_firewalld import hosts
from ipcni.protocol.host import Host
from ipcni.shell.facts import Rules, busy, iptables
from ipcni.shell.render import render

_FORWARD = "CNI-FORWARD"
_PREFIX = "CNI firewall plugin rules (ingressPolicy: "
_COMMON = f"{_PREFIX}same-bridge|isolated)"
_BEFORE_ISOLATED = f"{_PREFIX}same-bridge)"  # the same, of Go plugins that know no `isolated`


def require(host: Host, wanted: Wanted) -> None:
    """Raises CniError where the tool for a family is missing."""
    for family in wanted.families:
        if not host.has(tool := iptables(family)):
            raise CniError(
                f'could not initialize iptables protocol {FAMILIES.index(family)}: exec: "{tool}": executable file not found in $PATH',
                details=f"install {tool}, or have the plugin use nft with `backend`: `nftables`",
            )


def add(host: Host, wanted: Wanted, *, accept: bool = True, first: bool = False) -> None:
    """The shared chains where something of them is missing, then what the addresses lack, one transaction per family.

    Without `accept`, only the isolation of the bridge. The `first` time there is nothing of the addresses yet.
    """
    for family in wanted.families:
        shared = _shared(wanted, family, accept=accept)
        rules = _own(wanted.of(family)) if accept else []
        questions = tuple(Step(argv=step.unless) for step in shared if step.unless)
        if (first or not rules) and host.attempt(questions + _accepted(rules, family)):
            continue
        there = _look(host, family)
        if _missing(shared, there):
            with host.locked(f"chains-filter-{family}"):
                host.do(_missing(shared, _look(host, family)))
        host.do(_accepted([rule for rule in rules if not there.has("-A", _FORWARD, *rule)], family))


def _accepted(rules: list[tuple[str, ...]], family: Family) -> Plan:
    return render("firewall/add.sh.j2", iptables=iptables(family), rules=rules) if rules else ()


def _look(host: Host, family: Family) -> Rules:
    """The filter table. Raises CniError when it cannot be read: what is planned then would be wrong."""
    there = host.facts.rules(family, "filter")
    if there.fault and host.live:
        text = there.fault.err.strip() or f"exit status {there.fault.status}"
        code = TRY_AGAIN if busy(there.fault) else INTERNAL
        raise CniError(
            f"cannot read the filter table: {text}", code, f"`{iptables(family)} -w 10 -t filter -S` found out nothing"
        )
    return there


def _shared(wanted: Wanted, family: Family, *, accept: bool) -> Plan:
    return render(
        "firewall/shared.sh.j2",
        iptables=iptables(family),
        accept=accept,
        admin=wanted.admin,
        bridge=wanted.bridge,
        strict=wanted.strict,
        common=_COMMON,
        comment=f"{_PREFIX}{wanted.policy})",
    )


def _missing(shared: Plan, there: Rules) -> Plan:
    """The steps whose chain or rule is not there. The question of a rule is the rule, behind `-w 10 -t filter -C`."""
    return tuple(step for step in shared if not (_has(there, *step.unless[6:]) if step.unless else step.argv[6] in there.chains))


def _has(there: Rules, *rule: str) -> bool:
    return there.has("-A", *rule) or there.has("-A", *(_BEFORE_ISOLATED if word == _COMMON else word for word in rule))


def _own(addresses: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [
        rule
        for each in hosts(addresses)
        for rule in (
            ("-d", each, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
            ("-s", each, "-j", "ACCEPT"),
        )
    ]


def withdraw(host: Host, addresses: tuple[str, ...]) -> Plan:
    """Takes the rules of the addresses away, if all are there; what takes them away otherwise, as often as they are there, is returned."""
    plan: Plan = ()
    for family in FAMILIES:
        own = _own(tuple(each for each in addresses if (":" in each) == (family == 6)))
        if not own or not host.has(iptables(family)):
            continue
        if host.attempt(render("firewall/del.sh.j2", iptables=iptables(family), rules=own)):
            continue
        there = [rule[2:] for rule in host.facts.rules(family, "filter").rules if rule[1] == _FORWARD and rule[2:] in own]
        if there:
            plan += render("firewall/del.sh.j2", iptables=iptables(family), rules=there)
    return plan


def verify(host: Host, wanted: Wanted, *, accept: bool = True) -> None:
    """Raises CniError for the first rule that is not there; makes none."""
    for family in wanted.families:
        there = _look(host, family)
        rules = [step.unless[6:] for step in _shared(wanted, family, accept=accept) if step.unless]
        for chain, *words in rules:
            if not _known(host, family, there, chain, *words):
                raise CniError(f"expected {chain} rule [{' '.join(words)}] not found", details=f"{iptables(family)} -t filter")
        for rule in _own(wanted.of(family)) if accept else ():
            if not _known(host, family, there, _FORWARD, *rule):
                raise CniError(
                    f"expected rule [{' '.join(rule)}] not found", details=f"{iptables(family)} -t filter -S {_FORWARD}"
                )


def _known(host: Host, family: Family, there: Rules, *rule: str) -> bool:
    return _has(there, *rule) or host.facts.rule_there(family, "filter", *rule)
