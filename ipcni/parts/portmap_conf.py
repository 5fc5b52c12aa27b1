"""The keys of portmap and what is wrong with them (meta sheet 2.1, 2.2)."""

import ipaddress
import re

import msgspec

from ipcni.errors import CniError
from ipcni.model import Attachment, Family
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import IpConfig, Result

IPTABLES, NFTABLES = "iptables", "nftables"
_DEFAULT_BIT = 13
_PROTOCOL = re.compile("[a-z0-9]+")
_ENDS_A_RULE = re.compile("[;#\n\r\0]")  # nft reads one text: what ends a rule in it could begin another

_MAKES_NO_RULE = re.compile("-[hV].*|--he?l?p?|--versi?o?n?", re.DOTALL)


class Mapping(
    msgspec.Struct,
    frozen=True,
    rename={"host_port": "hostPort", "container_port": "containerPort", "host_ip": "hostIP"},
):
    """One published port."""

    host_port: int = 0
    container_port: int = 0
    protocol: str = ""
    host_ip: str = ""

    @property
    def transport(self) -> str:
        """The protocol as iptables and nft print it."""
        return self.protocol.lower()

    def applies(self, family: Family) -> bool:
        """Whether the mapping is for this family; a hostIP that is no address counts as IPv6, as in the reference."""
        if not self.host_ip:
            return True
        address = _address(self.host_ip)
        return (address.version if address else 6) == family

    @property
    def destination(self) -> str:
        """The one address of the node that is meant; the empty text for any. Raises CniError for what is no address."""
        if not self.host_ip:
            return ""
        address = _address(self.host_ip)
        if address is None:
            raise CniError(
                f"unable to setup DNAT: host/network `{self.host_ip}' not found",
                details="`hostIP` in `runtimeConfig.portMappings` is an address of the node",
            )
        return "" if address.is_unspecified else str(address)


def _address(text: str) -> addresses.Ip | None:
    try:
        return addresses.ip(text)
    except CniError:
        return None


class _Runtime(msgspec.Struct, frozen=True, rename="camel"):
    port_mappings: tuple[Mapping, ...] = ()


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/portmap.md says what they do."""

    backend: str | None = None
    snat: bool = True
    masq_all: bool = False
    mark_masq_bit: int | None = None
    external_set_mark_chain: str | None = None
    conditions_v4: tuple[str, ...] = ()
    conditions_v6: tuple[str, ...] = ()
    runtime_config: _Runtime = _Runtime()

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        return self.runtime_config.port_mappings

    @property
    def mark(self) -> str:
        """The packet mark as `value/mask`."""
        bit = _DEFAULT_BIT if self.mark_masq_bit is None else self.mark_masq_bit
        return f"{1 << bit:#x}/{1 << bit:#x}"

    @property
    def marks(self) -> bool:
        """Whether packets are marked by our own chains."""
        return self.snat and self.external_set_mark_chain is None

    def conditions(self, family: Family) -> tuple[str, ...]:
        return self.conditions_v6 if family == 6 else self.conditions_v4


class Ports(msgspec.Struct, frozen=True):
    """What is published of one container over one address family. `address` is the container's, with its prefix length."""

    at: Attachment
    conf: Conf
    address: addresses.Interface

    @property
    def family(self) -> Family:
        return 6 if self.address.version == 6 else 4

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """The mappings of this family."""
        return tuple(mapping for mapping in self.conf.mappings if mapping.applies(self.family))

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.conf.conditions(self.family)


class Flow(msgspec.Struct, frozen=True):
    """A published UDP port: the kernel remembers where it sent its datagrams. `target` is empty for any container."""

    family: Family
    port: int
    target: str = ""


def load(req: Request, host: Host) -> tuple[Conf, Result | None, str]:
    """Configuration, prevResult and backend, checked in the reference's order."""
    conf = req.config(Conf, prefix="failed to parse network configuration")
    prev = req.prev_result()
    if conf.external_set_mark_chain is not None and conf.mark_masq_bit is not None:
        raise CniError("Cannot specify externalSetMarkChain and markMasqBit")
    if conf.mark_masq_bit is not None and not 0 <= conf.mark_masq_bit <= 31:
        raise CniError("MasqMarkBit must be between 0 and 31", details=f"`markMasqBit` is {conf.mark_masq_bit}")
    backend = automatic(host) if conf.backend is None else conf.backend
    _check_options(conf, backend)
    if backend not in (IPTABLES, NFTABLES):
        raise CniError(f'unrecognized backend "{backend}"', details=f"`backend` is {IPTABLES} or {NFTABLES}")
    for index, mapping in enumerate(conf.mappings):
        _check_mapping(mapping, f"runtimeConfig.portMappings[{index}]")
    return conf, prev, backend


def automatic(host: Host) -> str:
    """The backend where none is asked for: iptables, unless nft is all there is."""
    return NFTABLES if host.has("nft") and not host.has("iptables") else IPTABLES


def _check_options(conf: Conf, backend: str) -> None:
    styles = {"conditionsV4": _style(conf.conditions_v4), "conditionsV6": _style(conf.conditions_v6)}
    if conf.external_set_mark_chain is not None:
        styles = {"externalSetMarkChain": IPTABLES, **styles}
    wrong = NFTABLES if backend == IPTABLES else IPTABLES
    if keys := " ".join(key for key, style in styles.items() if style == wrong):
        raise CniError(f"{backend} backend was requested but configuration contains {wrong}-specific options [{keys}]")
    for key, words in (("conditionsV4", conf.conditions_v4), ("conditionsV6", conf.conditions_v6)):
        if backend == NFTABLES and any(_ENDS_A_RULE.search(word) for word in words):
            raise CniError(
                f"{key} holds a `;`, a `#` or a line break, which would end the rule", details=f"{key} is {list(words)}"
            )
        if backend == IPTABLES and (asked := [word for word in words if _MAKES_NO_RULE.fullmatch(word)]):
            raise CniError(
                f"{key} holds {' '.join(asked)}, with which iptables succeeds and makes no rule",
                details=f"{key} is {list(words)}",
            )


def _style(conditions: tuple[str, ...]) -> str:
    if not conditions or not conditions[0]:
        return ""
    return IPTABLES if conditions[0][0] in "-!" else NFTABLES


def _check_mapping(mapping: Mapping, key: str) -> None:
    for kind, name, port in (
        ("container", "containerPort", mapping.container_port),
        ("host", "hostPort", mapping.host_port),
    ):
        if not 0 < port < 1 << 16:
            raise CniError(f"Invalid {kind} port number: {port}", details=f"`{key}.{name}` is a number from 1 to 65535")
    if not _PROTOCOL.fullmatch(mapping.transport):
        raise CniError(
            f'unknown protocol "{mapping.protocol}" specified', details=f"`{key}.protocol` is a name such as tcp, udp or sctp"
        )


def published(req: Request, conf: Conf, prev: Result) -> list[Ports]:
    """The container's part of the result: of each family the first address of the interface the call is for."""
    found: dict[int, Ports] = {}
    for ip in prev.ips:
        if _is_containers(ip, req, prev):
            address = addresses.cidr(ip.address)
            found.setdefault(address.version, Ports(req.attachment, conf, address))
    return [found[version] for version in sorted(found)]


def _is_containers(ip: IpConfig, req: Request, prev: Result) -> bool:
    if ip.interface is None or not 0 <= ip.interface < len(prev.interfaces):
        return True
    link = prev.interfaces[ip.interface]
    return link.name == req.ifname and bool(link.sandbox)


def word(family: Family) -> str:
    """What nft calls an address family."""
    return "ip6" if family == 6 else "ip"


def everything(family: Family) -> str:
    """The prefix that holds all addresses of a family."""
    return "::/0" if family == 6 else "0.0.0.0/0"


def host_prefix(address: str) -> str:
    """An address as iptables prints it: with its prefix length."""
    return ipaddress.ip_network(address).with_prefixlen
