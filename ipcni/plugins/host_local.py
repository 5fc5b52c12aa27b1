"""host-local: leases addresses from configured ranges, as files all pods of the node share (IPAM sheet 2)."""

import os

import msgspec

from ipcni.errors import BAD_CONFIG, NOT_AVAILABLE, CniError
from ipcni.ipam import ranges
from ipcni.ipam.leases import LOCK_MODE, POINTER, Store, owner
from ipcni.ipam.ranges import RangeConf, RangeSet
from ipcni.protocol import address as addresses
from ipcni.protocol import args, result
from ipcni.protocol.host import Host
from ipcni.protocol.quoting import quote
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, IpConfig, Result, Route
from ipcni.shell.render import render

DATA_DIR = "/var/lib/cni/networks"


class Ipam(msgspec.Struct, frozen=True, rename="camel"):
    """The `ipam` object."""

    ranges: tuple[tuple[RangeConf, ...], ...] = ()
    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""
    data_dir: str = ""
    resolv_conf: str = ""
    routes: tuple[Route, ...] = ()


class _Cni(msgspec.Struct, frozen=True):
    ips: tuple[str, ...] = ()


class _Args(msgspec.Struct, frozen=True):
    cni: _Cni = _Cni()


class _Runtime(msgspec.Struct, frozen=True, rename="camel"):
    ip_ranges: tuple[tuple[RangeConf, ...], ...] = ()
    ips: tuple[str, ...] = ()


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    ipam: Ipam | None = None
    args: _Args = _Args()
    runtime_config: _Runtime = _Runtime()


class _Where(msgspec.Struct, frozen=True, rename="camel"):
    data_dir: str = ""


class _Place(msgspec.Struct, frozen=True):
    """As much of the configuration as a release needs."""

    ipam: _Where = _Where()


class Lease(msgspec.Struct, frozen=True):
    """An address to be taken: where its file and its range set's pointer are, and whether an empty file is in the way."""

    address: str
    length: int
    gateway: str
    path: str
    pointer: str
    leftover: bool


def add(req: Request, host: Host) -> Result:
    """Leases one address per range set."""
    conf = req.config(Conf, prefix="")
    if conf.ipam is None:
        raise CniError("IPAM config missing 'ipam' key", details="add an `ipam` object with `type` and `ranges`")
    sets = _range_sets(conf, req.version)
    wanted = _requested(conf, req.args)
    routes = tuple(result.route(route) for route in conf.ipam.routes)
    dns = _resolv_conf(conf.ipam.resolv_conf) if conf.ipam.resolv_conf else Dns()
    store = _store(req, conf.ipam.data_dir, host)
    with host.locked(store.lock, mode=LOCK_MODE, keep=True):
        before = store.state()
        held = store.held(req.container_id, req.ifname)
        leases = _choose(store, sets, wanted, held, req)
        host.do(render("host-local/add.sh.j2", leases=leases, container_id=req.container_id, ifname=req.ifname))
        paths = held + [lease.path for lease in leases]
        host.upkeep(lambda: store.note(req.container_id, req.ifname, paths, before=before))
    ips = tuple(IpConfig(address=f"{lease.address}/{lease.length}", gateway=lease.gateway) for lease in leases)
    return Result(ips=ips, routes=routes, dns=dns)


def delete(req: Request, host: Host) -> None:
    """Releases what the attachment holds. Needs no valid ranges, no namespace and no prevResult."""
    args.parse(req.args, "IP")
    store = _place(req, host)
    if not os.path.isdir(store.folder):
        return
    with host.locked(store.lock, mode=LOCK_MODE, keep=True):
        before = store.state()
        if held := store.held_for_sure(req.container_id, req.ifname):
            host.do(render("host-local/del.sh.j2", leases=held))
            host.upkeep(lambda: store.note(req.container_id, req.ifname, [], before=before))


def check(req: Request, host: Host) -> None:
    """The attachment holds a lease."""
    conf = req.config(Conf, prefix="")
    if conf.ipam is None:
        raise CniError("IPAM config missing 'ipam' key")
    _range_sets(conf, req.version)
    _requested(conf, req.args)
    store = _store(req, conf.ipam.data_dir, host)
    if os.path.isdir(store.folder):
        with host.locked(store.lock, mode=LOCK_MODE, keep=True):
            if store.held_for_sure(req.container_id, req.ifname):
                return
    raise CniError(
        f"host-local: Failed to find address added by container {req.container_id}",
        details=f"{store.folder} holds no lease with this container id and {req.ifname}",
    )


def gc(req: Request, host: Host) -> None:
    """Releases every lease of this network that belongs to none of the valid attachments."""
    valid = req.valid_attachments()
    store = _place(req, host)
    if valid is None or not os.path.isdir(store.folder):
        return
    containers = {container_id for container_id, _ in valid}
    with host.locked(store.lock, mode=LOCK_MODE, keep=True):
        stale = []
        for path, content in store.everything():
            who = owner(content) if addresses.is_ip(os.path.basename(path)) else None  # else somebody's note
            if who and who not in valid and (who[1] or who[0] not in containers):
                stale.append(path)
        if stale:
            host.do(render("host-local/del.sh.j2", leases=stale))


def status(req: Request, host: Host) -> None:
    """There is a free address in every range set, the leases can be written, and `resolvConf` read."""
    conf = req.config(Conf, prefix="")
    if conf.ipam is None:
        raise CniError("IPAM config missing 'ipam' key")
    store = _store(req, conf.ipam.data_dir, host)
    place = os.path.abspath(store.folder)
    while not os.path.lexists(place):  # ADD makes what is missing
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise CniError(f"{place} cannot be written to", NOT_AVAILABLE, f"leases are files in {store.folder}")
    if conf.ipam.resolv_conf:
        try:
            _resolv_conf(conf.ipam.resolv_conf)
        except CniError as error:
            raise CniError(error.msg, NOT_AVAILABLE, error.details) from error
    for number, range_set in enumerate(_range_sets(conf, req.version)):
        try:
            _free(store, range_set, number)
        except CniError as error:
            details = f"release leaked leases in {store.folder}, or widen `ipam.ranges[{number}]`"
            raise CniError(error.msg, NOT_AVAILABLE, details) from error


def _place(req: Request, host: Host) -> Store:
    return _store(req, req.config(_Place, prefix="").ipam.data_dir, host)


def _store(req: Request, data_dir: str, host: Host) -> Store:
    _check_path(data_dir, "dataDir")
    return Store(f"{data_dir or DATA_DIR}/{req.network}", f"{host.settings.state_dir}/leases")


def _check_path(path: str, key: str) -> None:
    """Raises CniError 7 for what no command line can carry."""
    if not path.isprintable():
        raise CniError(f"invalid path {quote(path)}", BAD_CONFIG, f"`ipam.{key}` has a character that cannot be printed")


def _range_sets(conf: Conf, version: str) -> tuple[RangeSet, ...]:
    """Runtime ranges, the old-style one, the configured ones: this order numbers them on disk."""
    ipam = conf.ipam or Ipam()
    old = RangeConf(ipam.subnet, ipam.range_start, ipam.range_end, ipam.gateway)
    return ranges.check(conf.runtime_config.ip_ranges + (((old,),) if ipam.subnet else ()) + ipam.ranges, version)


def _requested(conf: Conf, cni_args: str) -> list[addresses.Ip]:
    """The addresses somebody asked for, in the order given."""
    wanted = []
    if text := args.parse(cni_args, "IP").get("IP"):
        try:
            wanted.append(_asked(text))
        except CniError:
            raise CniError(f'ARGS: error parsing value of pair "IP={text}": invalid IP address {text}') from None
    for text in conf.args.cni.ips + conf.runtime_config.ips:
        if not text:
            raise CniError("cannot understand ip: IP <nil> not v4 nor v6")
        try:
            wanted.append(_asked(text))
        except CniError:
            raise CniError(f"invalid IP address {text}") from None
    return list(dict.fromkeys(wanted))


def _asked(text: str) -> addresses.Ip:
    """The address of `ip` or `ip/len`."""
    return addresses.cidr(text).ip if "/" in text else addresses.ip(text)


def _choose(store: Store, sets: tuple[RangeSet, ...], wanted: list[addresses.Ip], held: list[str], req: Request) -> list[Lease]:
    """One address of each set. Raises CniError before anything has been taken."""
    leases = []
    for number, range_set in enumerate(sets):
        try:
            asked = next((ip for ip in wanted if ranges.holding(range_set, ip)), None)
            if asked is not None:
                wanted.remove(asked)
                leases.append(_exactly(store, range_set, number, asked))
            else:
                _refuse_duplicate(range_set, held, req)
                leases.append(_free(store, range_set, number))
        except CniError as error:
            raise error.under(f"failed to allocate for range {number}") from error
    if wanted:
        raise CniError(f"failed to allocate all requested IPs: {' '.join(map(str, wanted))}")
    return leases


def _exactly(store: Store, range_set: RangeSet, number: int, ip: addresses.Ip) -> Lease:
    each = ranges.holding(range_set, ip)
    if each is None or int(ip) == each.gateway:
        raise CniError(f"requested ip {ip} is subnet's gateway")
    if store.taken(str(ip)):
        raise CniError(
            f"requested IP address {ip} is not available in range set {ranges.title(range_set)}",
            details=f"{store.folder}/{ip} names the container that holds it",
        )
    return _lease(store, each, number, int(ip))


def _free(store: Store, range_set: RangeSet, number: int) -> Lease:
    for each, candidate in ranges.candidates(range_set, store.pointer(number)):
        if not store.taken(each.address(candidate)):
            return _lease(store, each, number, candidate)
    raise CniError(
        f"no IP addresses available in range set: {ranges.title(range_set)}",
        details=f"every address has a lease file in {store.folder}; those of containers that are gone were leaked",
    )


def _lease(store: Store, each: ranges.Range, number: int, candidate: int) -> Lease:
    address = each.address(candidate)
    return Lease(
        address=address,
        length=each.length,
        gateway=each.address(each.gateway),
        path=f"{store.folder}/{address}",
        pointer=f"{store.folder}/{POINTER}.{number}",
        leftover=store.leftover(address),
    )


def _refuse_duplicate(range_set: RangeSet, held: list[str], req: Request) -> None:
    for path in held:
        name = os.path.basename(path)
        ip = addresses.ip(name) if addresses.is_ip(name) else None
        if ip and ranges.holding(range_set, ip):
            raise CniError(
                f"{ip} has been allocated to {req.container_id}, duplicate allocation is not allowed",
                details=f"the lease is {path}; a DEL for this container and {req.ifname} releases it",
            )


def _resolv_conf(path: str) -> Dns:
    """The resolver settings of a file (resolv.conf(5)). Raises CniError when it cannot be read."""
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    domain = ""
    _check_path(path, "resolvConf")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise CniError(f"open {path}: {(error.strerror or '').lower()}", details="`ipam.resolvConf` names it") from error
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        match words[0]:
            case "domain":
                domain = words[1]
            case "nameserver":
                found["nameserver"].append(words[1])
            case "search" | "options" as key:
                found[key] += words[1:]
    return Dns(tuple(found["nameserver"]), domain, tuple(found["search"]), tuple(found["options"]))
