"""dhcp: leases an address from the network's own DHCP server, by way of a daemon that keeps it (IPAM sheet 4)."""

import os

from ipcni.dhcp import conf, rpc
from ipcni.dhcp.rpc import Args
from ipcni.errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, CniError
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result

_NO_METHOD = "rpc: can't find method"


def add(req: Request, host: Host) -> Result:
    """The lease that the daemon has, or gets, for this attachment."""
    path = _socket(conf.load(req))
    host.on_undo(lambda: _tell(req, host, path, "Release"))
    return _tell(req, host, path, "Allocate")


def check(req: Request, host: Host) -> None:
    """The daemon has a lease; if it has none, it gets one, as the reference does."""
    _tell(req, host, _socket(conf.load(req)), "Allocate")


def delete(req: Request, host: Host) -> None:
    """Has the daemon release the lease. Where there is no daemon and no pod either, there is nothing to release."""
    try:
        _tell(req, host, _place(req), "Release")
    except rpc.NoDaemonError:
        if req.netns_path and os.path.exists(req.netns_path):
            raise


def gc(req: Request, host: Host) -> None:
    """Has the daemon release what the network has beside its valid attachments; the reference's has no such method."""
    if req.valid_attachments() is None:
        return
    _optional(req, host, "GC")


def status(req: Request, host: Host) -> None:
    """The daemon answers, and has a DHCP client; without it leases are not renewed either."""
    try:
        _optional(req, host, "Status")
    except rpc.NoDaemonError as error:
        raise CniError(error.msg, LIMITED_CONNECTIVITY, error.details) from error
    except CniError as error:
        raise CniError(error.msg, NOT_AVAILABLE, error.details) from error


def _place(req: Request) -> str:
    """The socket, whatever else is wrong with the configuration."""
    return _socket(req.config(conf.Conf, prefix="").ipam or conf.Ipam())


def _socket(ipam: conf.Ipam) -> str:
    return ipam.daemon_socket_path or rpc.DEFAULT_SOCKET


def _optional(req: Request, host: Host, method: str) -> None:
    try:
        _tell(req, host, _place(req), method)
    except CniError as error:
        if _NO_METHOD not in error.msg:
            raise


def _tell(req: Request, host: Host, path: str, method: str) -> Result:
    netns = os.path.abspath(req.netns_path) if req.netns_path else ""
    args = Args(req.container_id, netns, req.ifname, req.args, req.path, req.stdin)
    return host.consult((f"DHCP.{method}", path), req.env, req.stdin, lambda: rpc.call(path, method, args)) or Result()
