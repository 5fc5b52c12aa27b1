"""flannel: turns what flanneld wrote about this node into the config of another plugin, and calls that (flannel sheet 1 to 8)."""

import contextlib
import json
import os
import time
from typing import Any

import msgspec

from ipcni import names
from ipcni.errors import NOT_AVAILABLE, CniError
from ipcni.parts.flannel_env import SubnetEnv, read
from ipcni.protocol import config, delegate, result
from ipcni.protocol.host import Host
from ipcni.protocol.request import VALID_ATTACHMENTS, Request
from ipcni.protocol.result import Result, Route
from ipcni.shell.render import render

_DRAFT = "."
_IFNAME = "eth0"  # what runtimes call a pod's first interface


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys. What is inside `delegate`, `ipam` and `runtimeConfig` is the delegate's business."""

    subnet_file: str = "/run/flannel/subnet.env"
    data_dir: str = "/var/lib/cni/flannel"
    cni_version: str = ""
    delegate: dict[str, Any] = {}
    ipam: dict[str, Any] = {}
    runtime_config: dict[str, Any] | None = None


class _Routes(msgspec.Struct, frozen=True):
    routes: tuple[Route, ...] = ()


def add(req: Request, host: Host) -> Result:
    """Writes down what the delegate will be given, for DEL, and calls it."""
    conf = _load(req, "failed to load flannel netconf file: failed to load netconf")
    given = delegate_conf(req.network, conf, read(conf.subnet_file))
    plugin = str(given["type"])
    stdin = config.dump(given)
    foreign = _findable(plugin, req.path) and not delegate.is_ours(delegate.find(plugin, req.path))
    path = _scratch(conf, req.container_id)
    with host.locked(names.lock("flannel", req.attachment)):
        # Somebody else's plugin may leave things behind when it fails: then DEL needs the file. So does an attachment that is there.
        keep = foreign or os.path.exists(path)
        host.do(render("flannel/add.sh.j2", folder=conf.data_dir, path=path, new=_draft(path), conf=stdin.decode(), keep=keep))
        try:
            return delegate.call(req, host, plugin, stdin)
        except CniError as error:
            raise (error.under("failed to delegate add") if _from_us(error) else error) from error


def delete(req: Request, host: Host) -> None:
    """Has the delegate delete what it was given at ADD; the note of that goes only when it did."""
    conf = _load(req, "failed to load netconf")
    path = _scratch(conf, req.container_id)
    with host.locked(names.lock("flannel", req.attachment)):
        stored = _stored(path)
        if stored is None:
            if os.path.exists(_draft(path)):  # an ADD was killed before it called the delegate
                host.do(render("flannel/del.sh.j2", paths=[_draft(path)]))
            return
        if not isinstance(stored, dict):  # empty after a crash, say: what is configured now has to do
            host.residue([f"{path} is unreadable, the delegate is told what the configuration says now"])
            stored = _rebuilt(req, conf)
        delegate.call(req, host, str(stored.get("type") or ""), config.dump(stored))
        host.do(render("flannel/del.sh.j2", paths=[each for each in (path, _draft(path)) if os.path.exists(each)]))


def check(req: Request, host: Host) -> None:
    """The delegate's own CHECK, of what it was given at ADD and what came of it."""
    conf = _load(req, "failed to load netconf")
    stored = _stored(_scratch(conf, req.container_id))
    given = stored if isinstance(stored, dict) else _rebuilt(req, conf)
    prev = config.find(req.conf, "prevResult")
    stdin = config.dump({**given, **({"prevResult": prev} if prev is not None else {})})
    delegate.call(req, host, str(given.get("type") or ""), stdin)


def status(req: Request, host: Host) -> None:
    """Not available while there is no subnet.env; else what the delegate says."""
    conf = _load(req, "failed to load netconf")
    try:
        given = delegate_conf(req.network, conf, read(conf.subnet_file))
    except CniError as error:
        raise CniError(error.msg, NOT_AVAILABLE, error.details) from error
    delegate.call(req, host, str(given["type"]), config.dump(given))


def gc(req: Request, host: Host) -> None:
    """The delegate's GC, then its DEL of what the notes on containers that are no more say: Go's plugins have no GC."""
    conf = _load(req, "failed to load netconf")
    valid = req.valid_attachments()
    if valid is None:
        return
    problems: list[CniError] = []
    given = _rebuilt(req, conf) | {key: req.conf[key] for key in VALID_ATTACHMENTS if key in req.conf}
    try:
        delegate.call(req, host, str(given["type"]), config.dump(given))
    except CniError as error:
        problems.append(error)
    alive = {container_id for container_id, _ in valid}
    for name in sorted(os.listdir(conf.data_dir)) if os.path.isdir(conf.data_dir) else []:
        path = os.path.join(conf.data_dir, name)
        if name.removeprefix(_DRAFT) in alive or not os.path.isfile(path):
            continue
        try:
            _collect(req, host, path)
        except CniError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _collect(req: Request, host: Host, path: str) -> None:
    """Removes what a note of this network tells of, and the note."""
    draft = os.path.basename(path).startswith(_DRAFT)
    stored = _stored(path)
    if isinstance(stored, dict):
        mine = stored.get("name") == req.network
    else:  # cut short by a crash, and nobody's; or just being written by another network's ADD
        mine = stored is not None and draft and _age(path) > host.settings.command_timeout
    if not mine:
        return
    if isinstance(stored, dict) and not draft:
        # The note does not tell the interface; what has another name is our own delegates' GC to find.
        env = {**req.env, "CNI_CONTAINERID": os.path.basename(path), "CNI_IFNAME": _IFNAME, "CNI_NETNS": ""}
        gone = msgspec.structs.replace(req, env=env)
        delegate.call(gone, host, str(stored.get("type") or ""), config.dump(stored), "DEL")
    host.do(render("flannel/del.sh.j2", paths=[path]))


def _age(path: str) -> float:
    """Seconds since a file was written; none where it is gone."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0


def delegate_conf(network: str, conf: Conf, env: SubnetEnv) -> dict[str, Any]:
    """What the delegate is given: our `delegate` and `ipam`, completed by the node's subnet.

    Keys are in the order in which Go writes them, so that the file we keep is the one the Go plugin would. Raises CniError
    for a `delegate` that sets what is ours to set.
    """
    if not isinstance(conf.delegate.get("type", ""), str):
        raise CniError("'delegate' dictionary, if present, must have (string) 'type' field")
    for key in ("name", "ipam"):
        if conf.delegate.get(key) is not None or key in conf.delegate:
            raise CniError(f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel")
    given = {"type": "bridge", "ipMasq": not env.ip_masq, "mtu": env.mtu, **conf.delegate, "name": network}
    if given["type"] == "bridge":
        given.setdefault("isGateway", True)
    if conf.runtime_config is not None:
        given["runtimeConfig"] = conf.runtime_config
    if conf.cni_version:
        given["cniVersion"] = conf.cni_version
    given["ipam"] = {}
    ordered: dict[str, Any] = config.in_order(given)  # type: ignore[assignment]
    ordered["ipam"] = _ipam(conf.ipam, env)
    return ordered


def _ipam(ipam: dict[str, Any], env: SubnetEnv) -> dict[str, Any]:
    try:
        own = config.decode({"routes": ipam.get("routes")}, _Routes, prefix="").routes
        routes = [result.route_json(result.route(route)) for route in own]
    except CniError as error:
        prefix = "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes"
        raise error.under(prefix) from error
    routes += [{"dst": network} for network in env.networks]
    ranges = [[{"subnet": subnet}] for subnet in env.subnets]
    ordered: dict[str, Any] = config.in_order(  # type: ignore[assignment]
        {"type": "host-local", **ipam, "ranges": ranges, "routes": []}
    )
    ordered["routes"] = routes  # their keys stay in the order of the type
    return ordered


def _load(req: Request, prefix: str) -> Conf:
    return req.config(Conf, prefix)


def _rebuilt(req: Request, conf: Conf) -> dict[str, Any]:
    """What the delegate would be given now; without subnet.env as much of it as a release needs."""
    with contextlib.suppress(CniError):
        return delegate_conf(req.network, conf, read(conf.subnet_file))
    return delegate_conf(req.network, conf, SubnetEnv())


def _scratch(conf: Conf, container_id: str) -> str:
    return os.path.join(conf.data_dir, container_id)


def _draft(path: str) -> str:
    """Where a note is written, to get its name when it is whole. No container id begins with a dot."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _DRAFT + name)


def _stored(path: str) -> object:
    """What ADD wrote down; None where it didn't, the raw bytes where they are no JSON."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CniError(f"read {path}: {(error.strerror or '').lower()}") from error
    try:
        return json.loads(data)
    except ValueError:
        return data


def _findable(plugin: str, path: str) -> bool:
    try:
        return bool(delegate.find(plugin, path))
    except CniError:
        return False


def _from_us(error: CniError) -> bool:
    return error.msg.startswith(
        ("failed to find plugin", "no plugin name", "invalid plugin name", "no paths", "failed to unmarshal")
    )
