"""Results: one type inside, every version's layout outside (protocol sheet 5, CNI spec 1.1.0 "ADD Success")."""

import json
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import address as addresses
from ipcni.protocol import config

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_FAMILIES = (("", "0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0"))
OLD, MIDDLE, NEW = range(3)


class Interface(msgspec.Struct, frozen=True, rename={"socket_path": "socketPath", "pci_id": "pciID"}):
    """One link of the attachment; `sandbox` is the pod's CNI_NETNS, empty for links of the host."""

    name: str = ""
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class IpConfig(msgspec.Struct, frozen=True):
    """One address (with prefix length) of the interface with that index; `version` is the label of 0.3.0 to 0.4.0."""

    address: str = ""
    gateway: str = ""
    interface: int | None = None
    version: str = ""


class Route(msgspec.Struct, frozen=True):
    """One route; `gw` empty means: by the address's gateway."""

    dst: str = ""
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class Dns(msgspec.Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class _OldIp(msgspec.Struct, frozen=True):
    ip: str = ""
    gateway: str = ""
    routes: tuple[Route, ...] = ()


class _Wire(msgspec.Struct, frozen=True):
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    ip4: _OldIp | None = None
    ip6: _OldIp | None = None
    dns: Dns = Dns()


class Result(msgspec.Struct, frozen=True):
    """What ADD answers. `old` marks one that was read in the 0.1.0 layout, where having no address is fine."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    old: bool = False


def layout(version: str) -> int:
    """Which of the three layouts a version has. Raises CniError for a version nobody knows."""
    for number, versions in enumerate(_FAMILIES):
        if version in versions:
            return number
    raise CniError(f'unsupported CNI result version "{version}"')


def decode(value: object, version: str) -> Result:
    """A result object as written at `version`.

    Raises CniError 999: not an object, a label of another layout, a mistyped key, an address that is none.
    """
    number = layout(version)
    if not isinstance(value, dict):
        raise CniError(f"a result must be an object, not {type(value).__name__}")
    label = config.find(value, "cniVersion")
    if label is not None and label not in _FAMILIES[number]:
        known = " ".join(_FAMILIES[number])
        raise CniError(f'result type supports [{known}] but unmarshalled CNIVersion is "{label}"')
    wire = config.decode(value, _Wire, prefix="")
    if number == OLD:
        return Result(
            ips=tuple(
                _ip(IpConfig(address=slot.ip, gateway=slot.gateway, version=name))
                for name, slot in (("4", wire.ip4), ("6", wire.ip6))
                if slot
            ),
            routes=tuple(route(each) for slot in (wire.ip4, wire.ip6) if slot for each in slot.routes),
            dns=wire.dns,
            old=True,
        )
    interfaces, ips = wire.interfaces, wire.ips
    if number == NEW:
        ips = tuple(msgspec.structs.replace(ip, version="") for ip in ips)
    else:
        interfaces = tuple(Interface(name=each.name, mac=each.mac, sandbox=each.sandbox) for each in interfaces)
    return Result(interfaces, tuple(_ip(ip) for ip in ips), tuple(route(each) for each in wire.routes), wire.dns)


def _ip(ip: IpConfig) -> IpConfig:
    gateway = str(addresses.ip(ip.gateway)) if ip.gateway else ""
    return msgspec.structs.replace(ip, address=addresses.cidr(ip.address).with_prefixlen, gateway=gateway)


def route(each: Route) -> Route:
    """The route with its addresses in canonical form. Raises CniError for one that is none."""
    gw = str(addresses.ip(each.gw)) if each.gw else ""
    return msgspec.structs.replace(each, dst=addresses.cidr(each.dst).with_prefixlen, gw=gw)


def encode(result: Result, version: str) -> dict[str, Any]:
    """The result object in the layout of `version`, keys in the reference's order.

    Raises CniError `cannot convert: no valid IP addresses` where 0.1.0 and 0.2.0 need one.
    """
    number = layout(version)
    if number == OLD:
        return _encode_old(result, version)
    body: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [_interface(each, number) for each in result.interfaces],
        "ips": [_encode_ip(ip, number) for ip in result.ips],
        "routes": [route_json(each) for each in result.routes],
        "dns": dns_json(result.dns),
    }
    kept = {key: value for key, value in body.items() if value or (key == "dns" and number == MIDDLE)}
    if number != NEW:
        return kept
    ordered: dict[str, Any] = config.in_order(kept)  # type: ignore[assignment]
    return ordered


def text(value: dict[str, Any]) -> bytes:
    """A JSON document as the reference prints it: four blanks a level, no newline at the end."""
    return config.escape(json.dumps(value, indent=4, ensure_ascii=False)).encode("utf-8", "replace")


def _encode_old(result: Result, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"cniVersion": version}
    for label, slot in (("4", "ip4"), ("6", "ip6")):
        ip = next((ip for ip in result.ips if _label(ip) == label), None)
        if ip is None:
            continue
        routes = [
            route_json(each) if result.old else _some(dst=each.dst, gw=each.gw)
            for each in result.routes
            if addresses.family(each.dst) == int(label)
        ]
        body[slot] = _some(ip=ip.address, gateway=ip.gateway, routes=routes)
    if len(body) == 1 and not result.old:
        raise CniError("cannot convert: no valid IP addresses")
    body["dns"] = dns_json(result.dns)
    return body


def _label(ip: IpConfig) -> str:
    return ip.version or str(addresses.family(ip.address))


def _encode_ip(ip: IpConfig, number: int) -> dict[str, Any]:
    body: dict[str, Any] = {"version": _label(ip)} if number == MIDDLE else {}
    if ip.interface is not None:
        body["interface"] = ip.interface
    return body | _some(address=ip.address, gateway=ip.gateway)


def _interface(each: Interface, number: int) -> dict[str, Any]:
    body = {"name": each.name, **_some(mac=each.mac, sandbox=each.sandbox)}
    if number == NEW:
        body |= _some(mtu=each.mtu, socketPath=each.socket_path, pciID=each.pci_id)
    return body


def route_json(each: Route) -> dict[str, Any]:
    """One route as an object, empty fields left out."""
    body = _some(dst=each.dst, gw=each.gw, mtu=each.mtu, advmss=each.advmss, priority=each.priority)
    if each.table is not None:
        body["table"] = each.table
    if each.scope is not None:
        body["scope"] = each.scope
    return body


def dns_json(dns: Dns) -> dict[str, Any]:
    """The dns object, empty fields left out."""
    return _some(nameservers=dns.nameservers, domain=dns.domain, search=dns.search, options=dns.options)


def _some(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
