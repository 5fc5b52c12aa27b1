"""tuning: kernel settings of the pod, and what its link is like (meta sheet 5)."""

import json
from collections.abc import Mapping

import msgspec

from ipcni import names
from ipcni.errors import CniError, StepFailed
from ipcni.model import Plan
from ipcni.parts import interface, notes, tuning_conf
from ipcni.parts.tuning_conf import Wanted
from ipcni.protocol import address as addresses
from ipcni.protocol import config
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.shell.facts import read as read_file
from ipcni.shell.iproute import Link
from ipcni.shell.render import render

TOOLS = ("ip",)


class Before(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What was there before it was changed: the content of the backup file, as the Go plugin writes it, and the kernel settings."""

    mac: str | None = None
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    tx_q_len: int | None = None
    sysctl: dict[str, str] | None = None

    def over(self, other: "Before") -> "Before":
        """This, completed by the other."""
        pairs = zip(self.__struct_fields__, msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        whole = Before(**{name: theirs if mine is None else mine for name, mine, theirs in pairs})
        both = {**(other.sysctl or {}), **(self.sysctl or {})}
        return msgspec.structs.replace(whole, sysctl=both or None)

    @property
    def lines(self) -> tuple[str, ...]:
        """The members of the JSON object, in the reference's order."""
        values: dict[str, object] = msgspec.to_builtins(self)
        return tuple(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())


def add(req: Request, host: Host) -> Result:
    """Settings first, then the link; what was there is written down before. The answer is prevResult with the new MAC."""
    tuning_conf.check_duplicates(req.stdin)
    wanted = tuning_conf.load(req)
    tuning_conf.check_allowed(wanted)
    tuning_conf.check_paths(wanted)
    mac = wanted.hardware
    prev = req.required_result()
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("tuning", req.attachment)):
        now = host.facts.sysctls([each.path for each in wanted.sysctls], req.netns) if wanted.sysctls else {}
        link = host.facts.device(req.ifname, req.netns) if wanted.of_the_link else None
        if wanted.of_the_link and link is None:
            raise CniError(f'failed to get "{req.ifname}": Link not found')
        before = _before(link, now)
        plan = _backup(req, host, wanted, before) + _settings(req, wanted, before)
        _do(host, plan + (_link(req, wanted, mac, before) if link else ()))
    if not mac:
        return prev
    links = [msgspec.structs.replace(each, mac=wanted.mac) if each.name == req.ifname else each for each in prev.interfaces]
    return msgspec.structs.replace(prev, interfaces=tuple(links))


def _settings(req: Request, wanted: Wanted, before: Before) -> Plan:
    values = before.sysctl or {}
    lines = [
        (f"{each.path}={each.value}", f"{each.path}={values[each.path]}" if each.path in values else "")
        for each in wanted.sysctls
    ]
    return render("tuning/sysctl.sh.j2", pod=req.netns, settings=lines)


def _before(link: Link | None, now: Mapping[str, str]) -> Before:
    """What is there. A setting that reads as several lines cannot be written back."""
    known = {path: value for path, value in now.items() if "\n" not in value} or None
    if link is None:
        return Before(sysctl=known)
    return Before(link.mac, link.promiscuity != 0, link.mtu, "ALLMULTI" in link.flags, link.txqlen, known)


def _backup(req: Request, host: Host, wanted: Wanted, now: Before) -> Plan:
    """Writes down what is about to change; what an earlier ADD of this attachment wrote down was before that, and stays."""
    changing = Before(
        mac=now.mac if wanted.mac else None,
        promisc=now.promisc if wanted.promisc else None,
        mtu=now.mtu if wanted.mtu else None,
        allmulti=now.allmulti if wanted.allmulti is not None else None,
        tx_q_len=now.tx_q_len if wanted.txqlen is not None else None,
        sysctl=now.sysctl,
    )
    first = _stored(wanted.backup)
    whole = first.over(changing) if first else changing
    if whole == (first or Before()):
        return ()
    folder, _, _ = wanted.backup.rpartition("/")
    return notes.take(req, host, wanted.backup) + render(
        "tuning/backup.sh.j2", folder=folder, path=wanted.backup, lines=whole.lines, new=first is None
    )


def _link(req: Request, wanted: Wanted, mac: str, before: Before) -> Plan:
    return render("tuning/link.sh.j2", pod=req.netns, ifname=req.ifname, wanted=wanted, mac=mac, before=before)


def _do(host: Host, plan: Plan) -> None:
    try:
        host.do(plan)
    except StepFailed as failure:
        if failure.step.argv[0] != "sysctl":
            raise
        path = failure.step.argv[2].partition("=")[0]
        cause = failure.stderr.strip().rpartition(": ")[2].lower()
        verb = "open" if "no such file" in cause else "write"
        raise CniError(f"{verb} /proc/sys/{path}: {cause}", failure.code, failure.details) from failure


def _stored(path: str) -> Before | None:
    """What ADD wrote down; None where there is nothing, or nothing to be read."""
    text = read_file(path)
    try:
        found = config.decode(json.loads(text or ""), Before)
        return msgspec.structs.replace(found, mac=addresses.mac(found.mac) if found.mac else None)
    except (ValueError, CniError):
        return None


def delete(req: Request, host: Host) -> None:
    """Gives link and kernel settings back what ADD wrote down. It never fails for what it finds.

    The backup stays until all of it is restored, or until there is nothing that it could be restored to.
    """
    wanted = tuning_conf.load(req)
    with host.locked(names.lock("tuning", req.attachment)):
        if read_file(wanted.backup) is None:
            return
        try:
            there = bool(req.netns_path) and host.facts.netns_there(req.netns)
        except CniError as error:
            host.residue([f"{wanted.backup}: {error.msg}"])
            return
        before = _stored(wanted.backup)
        link = host.facts.device(req.ifname, req.netns) if there else None
        if before and there:
            plan = render("tuning/restore.sh.j2", pod=req.netns, ifname=req.ifname, before=before, link=link is not None)
            if failures := host.do(plan, keep_going=True):
                host.residue(failures)
                return
        host.do(render("tuning/forget.sh.j2", path=wanted.backup) + notes.drop(req, host), keep_going=True)


def gc(req: Request, host: Host) -> None:
    """Removes the backups of attachments that are no more, whose namespaces nobody knows."""
    valid = req.valid_attachments()
    problems: list[StepFailed] = []
    for each in notes.stale(req, host, valid) if valid is not None else ():
        with host.locked(names.lock("tuning", each.attachment)):
            paths = notes.words(each, host)
            plan = render("tuning/forget.sh.j2", path=paths[0]) if paths else ()
            problems += host.do(plan + notes.drop(each, host), keep_going=True)
    if problems:
        raise problems[0]


def check(req: Request, host: Host) -> None:
    """Settings and link are as configured."""
    tuning_conf.check_duplicates(req.stdin)
    wanted = tuning_conf.load(req)
    tuning_conf.check_paths(wanted)
    mac = wanted.hardware
    req.required_result()
    interface.open_netns(host.facts, req.netns)
    now = host.facts.sysctls([each.path for each in wanted.sysctls], req.netns) if wanted.sysctls else {}
    for each in wanted.sysctls:
        if each.path not in now:
            raise CniError(f"open /proc/sys/{each.path}: no such file or directory")
        if now[each.path].split() != each.value.split():  # the kernel writes tabs where people write blanks
            _differs(f"value of /proc/sys/{each.path}", each.value, now[each.path])
    link = host.facts.link(req.ifname, req.netns)
    if link is None:
        raise CniError(f"Cannot find container link {req.ifname}")
    if mac and mac != link.mac:
        _differs(f"Ethernet of {req.ifname}", wanted.mac, link.mac)
    # A capture in the pod makes the kernel listen to everything too; only the flag is somebody's setting.
    if wanted.promisc != (link.promiscuity != 0 if wanted.promisc else "PROMISC" in link.flags):
        told = str(wanted.promisc).lower()
        raise CniError(f"Error: Tuning link {req.ifname} configured promisc is {told}, current value is {link.promiscuity}")
    if wanted.mtu and wanted.mtu != link.mtu:
        _differs(f"MTU of {req.ifname}", wanted.mtu, link.mtu)
    multi = "ALLMULTI" in link.flags
    if wanted.allmulti is not None and wanted.allmulti != multi:
        _differs(f"all-multicast mode of {req.ifname}", str(wanted.allmulti).lower(), str(multi).lower())
    if wanted.txqlen is not None and wanted.txqlen % (1 << 32) != link.txqlen:
        _differs(f"Transmit Queue Length of {req.ifname}", wanted.txqlen, link.txqlen)


def _differs(what: str, wanted: object, now: object) -> None:
    raise CniError(f"Error: Tuning configured {what} is {wanted}, current value is {now}")
