"""firewall: lets a pod's packets through, and keeps bridges apart (meta sheet 3)."""

import contextlib

import msgspec

from ipcni import names
from ipcni.errors import NOT_AVAILABLE, CniError, StepFailed
from ipcni.model import Plan
from ipcni.parts import firewall_firewalld, firewall_iptables, firewall_nft, notes
from ipcni.parts.firewall_conf import FIREWALLD, IPTABLES, NFTABLES, Conf, backend, check_values, load, of, rules_by
from ipcni.protocol import ready
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.shell.render import render

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
BACKENDS = ("iptables", "firewalld", "nftables")


class _Noted(msgspec.Struct, frozen=True):
    """What an attachment's note for GC says: where its addresses are."""

    backend: str
    zone: str
    addresses: tuple[str, ...]


def _lock(req: Request) -> str:
    return names.lock("firewall", req.attachment)


def add(req: Request, host: Host) -> Result:
    """Rules, or a place in a zone, for all addresses of prevResult, which is the answer."""
    conf, wanted, prev = load(req)
    chosen = backend(req, host, conf)
    if conf.backend not in ("", chosen):
        host.note(f"there is no backend {conf.backend}: {chosen} it is")
    tool = _tool(host, chosen)
    if chosen == FIREWALLD:
        firewall_firewalld.require(req, host)
    if chosen != FIREWALLD or wanted.bridge:
        (firewall_nft if tool == NFTABLES else firewall_iptables).require(host, wanted)
    with host.locked(_lock(req)):
        before = _noted(req, host)
        now = _Noted(chosen, wanted.zone, wanted.addresses)
        if wanted.addresses:
            host.do(notes.take(req, host, now.backend, now.zone, *now.addresses))
        if chosen == FIREWALLD:
            host.do(render("firewall/firewalld-add.sh.j2", **firewall_firewalld.values(req, wanted.zone, wanted.addresses)))
        if chosen != FIREWALLD or wanted.bridge:
            accept = chosen != FIREWALLD
            if tool == NFTABLES:
                firewall_nft.add(host, wanted, accept=accept)
            else:
                firewall_iptables.add(host, wanted, accept=accept, first=before is None)
        if before is not None:
            host.do(_outdated(req, host, before, now), keep_going=True)
    return prev


def _tool(host: Host, chosen: str) -> str:
    """What makes rules: firewalld has none for the isolation of bridges."""
    return rules_by(host) if chosen == FIREWALLD else chosen


def _noted(req: Request, host: Host) -> _Noted | None:
    match notes.words(req, host):
        case (chosen, zone, *addresses):
            return _Noted(chosen, zone, tuple(addresses))
    return None


def _outdated(req: Request, host: Host, before: _Noted, now: _Noted) -> Plan:
    """What takes away where an earlier ADD of the attachment put other addresses, or put them elsewhere."""
    moved = before.backend != now.backend or (now.backend == FIREWALLD and before.zone != now.zone)
    gone = tuple(each for each in before.addresses if moved or each not in now.addresses)
    return _withdraw(req, host, before.backend, before.zone, _free(req, host, gone, {_key(req)}))


def _key(req: Request) -> tuple[str, str]:
    return req.container_id, req.ifname


def _free(req: Request, host: Host, addresses: tuple[str, ...], dead: set[tuple[str, str]]) -> tuple[str, ...]:
    """Those of the addresses that no attachment of the network has but the dead ones: a late DEL may find them with a new pod."""
    others = notes.stale(req, host, frozenset(dead)) if addresses else []
    taken = {address for other in others if (noted := _noted(other, host)) for address in noted.addresses}
    return tuple(each for each in addresses if each not in taken)


def _withdraw(req: Request, host: Host, chosen: str, zone: str, addresses: tuple[str, ...]) -> Plan:
    if chosen == FIREWALLD:  # which has forgotten them when it does not run
        if not addresses or not firewall_firewalld.running(req, host):
            return ()
        return render("firewall/firewalld-del.sh.j2", **firewall_firewalld.values(req, zone, addresses))
    if chosen == NFTABLES:
        return firewall_nft.withdraw(host, addresses)
    return firewall_iptables.withdraw(host, addresses)


def delete(req: Request, host: Host) -> None:
    """Takes away what is there of the addresses, noted or in prevResult, and keeps on record what could not be.

    It never fails for what it finds: a runtime stops at the first DEL that does, and then the container's address is never released.
    """
    conf, known = Conf(), tuple[str, ...]()
    with contextlib.suppress(CniError):
        conf = req.config(Conf)
    with contextlib.suppress(CniError):
        known = of(prev) if (prev := req.prev_result()) else ()
    with host.locked(_lock(req)):
        noted = _noted(req, host)
        addresses = _free(req, host, tuple(dict.fromkeys((*(noted.addresses if noted else ()), *known))), {_key(req)})
        plan: Plan = ()
        if noted:
            plan = _withdraw(req, host, noted.backend, noted.zone, addresses)
        elif addresses:  # another suite's, or noted before the node was started again
            for chosen in dict.fromkeys((backend(req, host, conf), IPTABLES)):
                plan += _withdraw(req, host, chosen, conf.firewalld_zone, addresses)
        left = [*host.do(plan, keep_going=True), *host.facts.unknown]
        host.residue(left)
        host.do(() if left else notes.drop(req, host), keep_going=True)


def check(req: Request, host: Host) -> None:
    """Everything that ADD makes is there."""
    conf, wanted, _ = load(req)
    chosen = backend(req, host, conf)
    tool = _tool(host, chosen)
    if chosen == FIREWALLD:
        firewall_firewalld.verify(req, host, wanted.zone, wanted.addresses)
    if chosen != FIREWALLD or wanted.bridge:
        module = firewall_nft if tool == NFTABLES else firewall_iptables
        module.require(host, wanted)
        module.verify(host, wanted, accept=chosen != FIREWALLD)


def gc(req: Request, host: Host) -> None:
    """Takes away what attachments have that are no more. All is tried."""
    valid = req.valid_attachments()
    if valid is None:
        return
    failures: list[StepFailed] = []
    stale = notes.stale(req, host, valid)
    dead = {_key(each) for each in stale}
    for each in stale:
        with host.locked(_lock(each)):
            noted = _noted(each, host)
            plan: Plan = ()
            if noted:
                plan = _withdraw(each, host, noted.backend, noted.zone, _free(req, host, noted.addresses, dead))
            left = host.do(plan, keep_going=True)
            host.do(() if left or host.facts.unknown else notes.drop(each, host), keep_going=True)
            failures += left
    if failures:
        raise failures[0]


def status(req: Request, host: Host) -> None:
    """There is a tool to make rules with, or firewalld."""
    conf = req.config(Conf)
    check_values(conf)
    chosen = backend(req, host, conf)
    if chosen == FIREWALLD:
        ready.require(host, tools=("busctl",))
        if not firewall_firewalld.running(req, host):
            raise CniError(
                "firewalld does not run", NOT_AVAILABLE, "start it, or leave `backend` out to use it only where it does"
            )
    elif chosen == NFTABLES:
        ready.require_nft(host)
    else:
        ready.require_iptables(host, 4, "filter")
