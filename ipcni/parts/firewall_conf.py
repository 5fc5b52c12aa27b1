"""The keys of firewall and what is wrong with them (meta sheet 3.1, 3.3)."""

import re

import msgspec

from ipcni.errors import CniError
from ipcni.model import Family
from ipcni.parts import firewall_firewalld as firewalld
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result

IPTABLES, FIREWALLD, NFTABLES = "iptables", "firewalld", "nftables"
BACKENDS = (IPTABLES, FIREWALLD, NFTABLES)
FAMILIES: tuple[Family, Family] = (4, 6)
_OPEN, _SAME_BRIDGE, _ISOLATED = "open", "same-bridge", "isolated"
_CHAIN_LENGTH = 28  # what iptables takes
_ZONE = re.compile(r"[^\s-]\S*")  # one word of a note, and none that busctl takes for an option


class Conf(
    msgspec.Struct, frozen=True, rename={"admin": "iptablesAdminChainName", "zone": "firewalldZone", "policy": "ingressPolicy"}
):
    """The plugin's keys; docs/plugins/firewall.md says what they do."""

    backend: str = ""
    admin: str = ""
    zone: str = ""
    policy: str = ""

    @property
    def admin_chain(self) -> str:
        return self.admin or "CNI-ADMIN"

    @property
    def firewalld_zone(self) -> str:
        return self.zone or "trusted"


class Wanted(msgspec.Struct, frozen=True):
    """What one attachment is to have; no `bridge`: nothing is isolated."""

    addresses: tuple[str, ...]
    admin: str
    zone: str
    policy: str = _OPEN
    bridge: str = ""

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(family for family in FAMILIES if self.of(family))

    @property
    def strict(self) -> bool:
        """Whether a bridge's own pods are kept apart, too."""
        return self.policy == _ISOLATED

    def of(self, family: Family) -> tuple[str, ...]:
        """The addresses of one family."""
        return tuple(each for each in self.addresses if addresses.family(each) == family)


def load(req: Request) -> tuple[Conf, Wanted, Result]:
    """Configuration, what follows from it, and prevResult. Raises CniError for what is wrong, before anything is done."""
    conf = req.config(Conf)
    prev = req.prev_result()
    if prev is None:
        raise CniError(
            "missing prevResult from earlier plugin", details="firewall comes behind the plugin that makes the interface"
        )
    check_values(conf)
    bridge = "" if conf.policy in ("", _OPEN) else _bridge(conf, prev)
    return conf, Wanted(of(prev), conf.admin_chain, conf.firewalld_zone, conf.policy or _OPEN, bridge), prev


def check_values(conf: Conf) -> None:
    """Raises CniError for values that no attachment could have."""
    if conf.policy not in ("", _OPEN, _SAME_BRIDGE, _ISOLATED):
        raise CniError(
            f'unknown ingress policy: "{conf.policy}"', details=f"`ingressPolicy` is {_OPEN}, {_SAME_BRIDGE} or {_ISOLATED}"
        )
    if len(conf.admin_chain) > _CHAIN_LENGTH:
        raise CniError(
            f'chain name "{conf.admin}" is longer than {_CHAIN_LENGTH} characters', details="`iptablesAdminChainName` is too long"
        )
    if not _ZONE.fullmatch(conf.firewalld_zone):
        raise CniError(f'"{conf.zone}" is no name of a zone', details="`firewalldZone` has blanks, or begins with -")


def of(prev: Result) -> tuple[str, ...]:
    """All addresses of a result, without prefix length."""
    return tuple(dict.fromkeys(str(addresses.cidr(ip.address).ip) for ip in prev.ips))


def _bridge(conf: Conf, prev: Result) -> str:
    if not prev.interfaces:
        raise CniError(
            f'interface needs to be set for ingress policy "{conf.policy}", make sure to chain "firewall" plugin with "bridge"'
        )
    if not prev.interfaces[0].name:
        raise CniError("got empty bridge name", details="prevResult.interfaces[0].name")
    return prev.interfaces[0].name


def backend(req: Request, host: Host, conf: Conf) -> str:
    """What is asked for; else firewalld where it runs, iptables, or nft where that is all there is."""
    if conf.backend in BACKENDS:
        return conf.backend
    if firewalld.running(req, host):
        return FIREWALLD
    return rules_by(host)


def rules_by(host: Host) -> str:
    """The tool for rules where none is asked for."""
    return NFTABLES if host.has("nft") and not host.has("iptables") else IPTABLES
