"""The bridge that all pods of a network share: looked at first, and touched under its own lock only where something is missing.

Main sheet 2.3, steps 1 and 8.
"""

import msgspec

from ipcni import names
from ipcni.errors import CniError
from ipcni.parts import bridge_vlan, interface
from ipcni.parts.bridge_vlan import Trunk
from ipcni.parts.ipam import DnsConf, Ipam
from ipcni.protocol import address as addresses
from ipcni.protocol import skel
from ipcni.protocol.host import Host
from ipcni.protocol.result import Result
from ipcni.shell.iproute import Link
from ipcni.shell.render import render


class _Mac(msgspec.Struct, frozen=True):
    mac: str = ""


class _Args(msgspec.Struct, frozen=True):
    cni: _Mac = _Mac()


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/bridge.md says what they do."""

    bridge: str = "cni0"
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    ip_masq_backend: str | None = None
    mtu: int = 0
    hairpin_mode: bool = False
    promisc_mode: bool = False
    vlan: int = 0
    vlan_trunk: tuple[Trunk, ...] | None = None
    preserve_default_vlan: bool = False
    macspoofchk: bool = False
    enabledad: bool = False
    disable_container_interface: bool = False
    port_isolation: bool = False
    args: _Args = _Args()
    runtime_config: _Mac = _Mac()
    ipam: Ipam = Ipam()
    dns: DnsConf = DnsConf()

    @property
    def gateway(self) -> bool:
        return self.is_gateway or self.is_default_gateway

    @property
    def trunk(self) -> tuple[int, ...]:
        return bridge_vlan.ids(self.vlan_trunk or ())

    @property
    def filtering(self) -> bool:
        return bool(self.vlan) or self.vlan_trunk is not None


def check_name(name: str) -> None:
    """Refuses what cannot be a link's name. Raises CniError in the reference's words."""
    problem = ""
    if not name:
        problem = "LinkAttrs.Name cannot be empty"
    elif len(name.encode()) > 15:
        problem = "numerical result out of range"
    else:
        try:
            skel.check_ifname(name)
            interface.check_name(name)
        except CniError as error:
            problem = error.msg
    if problem:
        details = "`bridge` names a link: 1 to 15 bytes, no blanks, no /"
        raise CniError(f'failed to create bridge "{name}": could not add "{name}": {problem}', details=details)


def ensure(conf: Conf, host: Host) -> Link:
    """The bridge as it is, made or completed if need be."""
    link = _look(host, conf.bridge)
    if not _ready(link, conf, host):
        with host.locked(f"link-{conf.bridge}"):
            link = _look(host, conf.bridge)
            made = Link(
                name=conf.bridge,
                mac=names.mac(host.facts.machine_id(), "bridge", conf.bridge),
                mtu=max(conf.mtu, 0),
                linkinfo=bridge_vlan.new_bridge(filtering=conf.filtering),
            )
            if not _ready(link, conf, host):
                host.do(
                    render(
                        "bridge/bridge.sh.j2",
                        bridge=conf.bridge,
                        exists=link is not None,
                        mac=made.mac,
                        mtu=made.mtu,
                        filtering=conf.filtering,
                        promisc=conf.promisc_mode,
                    )
                )
                link = _look(host, conf.bridge) or made
    if link is None:
        raise CniError(f'failed to create bridge "{conf.bridge}": it is not there')
    if conf.filtering and not link.linkinfo.info_data.vlan_filtering:
        # Switching it on would cut off whoever uses the bridge already.
        host.note(f"{link.name} does not filter VLANs: the VLANs of the configuration have no effect")
    return link


def _look(host: Host, name: str) -> Link | None:
    return host.facts.bridge(name) or host.facts.link(name)


def _ready(link: Link | None, conf: Conf, host: Host) -> bool:
    if link is None:
        return False
    if link.kind != "bridge":
        raise CniError(
            f'failed to create bridge "{conf.bridge}": "{conf.bridge}" already exists but is not a bridge',
            details=f"`ip -d link show dev {conf.bridge}` shows what it is; name another one with `bridge`",
        )
    quiet = host.facts.sysctl(f"net/ipv6/conf/{link.name}/accept_ra") in (None, "0")
    return link.up and quiet and (not conf.promisc_mode or link.promiscuity > 0)


def ensure_gateways(conf: Conf, host: Host, link: Link, found: Result) -> None:
    """Gives the bridge (or its VLAN link) the gateway addresses it lacks."""
    listed = dict.fromkeys(f"{ip.gateway}/{ip.address.partition('/')[2]}" for ip in found.ips)
    wanted = sorted(listed, key=addresses.family)
    before = link.mac
    if all(address in {there.text for there in link.addresses} for address in wanted):
        return
    with host.locked(f"link-{link.name}"):
        link = _look(host, link.name) or link
        have = [there.text for there in link.addresses]
        missing = [address for address in wanted if address not in have]
        conflicts = {there: address for address in missing for there in have if there not in wanted and _conflict(address, there)}
        if conflicts and not conf.force_address:
            other, address = next(iter(conflicts.items()))
            raise CniError(
                f'failed to set bridge addr: "{link.name}" already has an IP address different from {address}',
                details=f"it has {', '.join(conflicts)}; if that is left over from another network, remove it "
                f"(`ip addr del {other} dev {link.name}`) or set `forceAddress`",
            )
        if missing:
            # The one it had before this pod's port joined: without one of its own a bridge takes a port's, which goes with the port.
            mac = before if before.strip("0:") else names.mac(host.facts.machine_id(), "bridge", link.name)
            host.do(render("bridge/gateway.sh.j2", link=link.name, mac=mac, addresses=missing, conflicts=list(conflicts)))


def _conflict(address: str, there: str) -> bool:
    mine, other = addresses.cidr(address), addresses.cidr(there)
    if mine.version != other.version:
        return False
    return mine.version == 4 or mine.ip in other.network or other.ip in mine.network
