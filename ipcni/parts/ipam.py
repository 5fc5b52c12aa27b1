"""The IPAM delegate of an interface plugin."""

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import delegate, result
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Result


class Ipam(msgspec.Struct, frozen=True):
    """As much of the `ipam` object as its caller looks at."""

    type: str = ""


class DnsConf(msgspec.Struct, frozen=True):
    """The `dns` object of a config, where an empty list is not the same as none."""

    nameservers: tuple[str, ...] | None = None
    domain: str = ""
    search: tuple[str, ...] | None = None
    options: tuple[str, ...] | None = None

    def over(self, theirs: Dns) -> Dns:
        """This, if anything at all was configured, else what IPAM said (main sheet 1.8)."""
        if self == DnsConf():
            return theirs
        return Dns(self.nameservers or (), self.domain, self.search or (), self.options or ())


def check_version(req: Request, plugin: str) -> None:
    """Refuses an ADD without addresses whose result would need one. Raises CniError in the reference's words."""
    if not plugin and result.layout(req.version) == result.OLD:
        raise CniError("cannot convert: no valid IP addresses", details=f"cniVersion {req.version} needs an `ipam`")


def lease(req: Request, host: Host, plugin: str) -> Result:
    """ADD of the IPAM plugin. Raises its error, or that it gave no address."""
    answer = delegate.call(req, host, plugin)
    if not answer.ips:
        raise CniError("IPAM plugin returned missing IP config", details=f"the answer of {plugin} has no `ips`")
    return answer


def in_process(req: Request, plugin: str) -> bool:
    """Whether the addresses can be known before any link is made: our own IPAM needs none, but for DHCP."""
    return plugin != "dhcp" and delegate.is_ours(delegate.find(plugin, req.path))


def release_by_link(req: Request, host: Host, plugin: str, problems: list[CniError]) -> str:
    """DHCP's part of a removal, which comes before the link goes: by it the server is told. What fails is added to `problems`.

    Returns the plugin whose part is still to come, or the empty text.
    """
    if plugin != "dhcp":
        return plugin
    try:
        delegate.call(req, host, plugin)
    except CniError as error:
        problems.append(error)
    return ""


def release(req: Request, host: Host, plugin: str, problems: list[CniError]) -> None:
    """The IPAM plugin's part of a removal (DEL, GC), whatever became of ours; `plugin` may be empty.

    Raises the first of `problems`, or else the plugin's own error.
    """
    if plugin:
        try:
            delegate.call(req, host, plugin)
        except CniError as error:
            problems.append(error)
    if problems:
        raise problems[0]
