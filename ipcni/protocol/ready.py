"""What STATUS looks at before a plugin does: whether the node has the tools and the kernel features that it needs (protocol sheet 2.6).

A plugin names what it always needs: `TOOLS = ("ip",)` are programs, `LINKS = ("bridge",)` what `ip link add … type` has to know,
`QUEUES = ("ingress",)` what `tc qdisc add dev …` has to. Its own `status` asks for what only some configurations need.
"""

from types import ModuleType

from ipcni.errors import NOT_AVAILABLE, CniError
from ipcni.model import Family
from ipcni.protocol.host import Host
from ipcni.shell.facts import iptables


def check(host: Host, plugin: ModuleType) -> None:
    """Raises CniError 50 for what the node lacks of all that a plugin names."""
    require(host, tools=getattr(plugin, "TOOLS", ()), links=getattr(plugin, "LINKS", ()))
    for queue in getattr(plugin, "QUEUES", ()):
        if not host.facts.queues(queue):
            kind = queue.removeprefix("root ").split()[0]
            raise CniError(f"this kernel has no queue {kind}", NOT_AVAILABLE, f"see whether `modprobe sch_{kind}` says why")


def require(host: Host, tools: tuple[str, ...] = (), links: tuple[str, ...] = ()) -> None:
    """Raises CniError 50 for a program or a kind of link, with options maybe (`bridge vlan_filtering 1`), that the node lacks."""
    for tool in tools:
        if not host.has(tool):
            raise CniError(
                f"this node has no {tool}", NOT_AVAILABLE, f"install what brings {tool}, or put it on the PATH of the runtime"
            )
    for link in links:
        if not host.facts.makes(link):
            kind = link.split()[0]
            raise CniError(f"this kernel makes no links of type {link}", NOT_AVAILABLE, f"see whether `modprobe {kind}` says why")


def require_nft(host: Host) -> None:
    """Raises CniError 50 where nft is not there, or cannot list what there is."""
    require(host, tools=("nft",))
    if host.facts.nft_ruleset() is None:
        raise CniError(f"nft cannot be used: {host.facts.unknown[-1]}", NOT_AVAILABLE)


def require_iptables(host: Host, family: Family, table: str) -> None:
    """Raises CniError 50 where iptables is not there, or cannot use a table."""
    require(host, tools=(iptables(family),))
    if fault := host.facts.rules(family, table).fault:
        raise CniError(f"{iptables(family)} cannot use the {table} table: {fault.err.strip()}", NOT_AVAILABLE)
