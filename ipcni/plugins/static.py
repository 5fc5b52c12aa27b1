"""static: hands out exactly the addresses it is told; keeps no state and changes nothing (IPAM sheet 3)."""

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import address as addresses
from ipcni.protocol import args, result
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, IpConfig, Result, Route


class Address(msgspec.Struct, frozen=True):
    """One element of `ipam.addresses`."""

    address: str = ""
    gateway: str = ""


class Ipam(msgspec.Struct, frozen=True):
    """The `ipam` object."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


class _Ips(msgspec.Struct, frozen=True):
    ips: tuple[str, ...] = ()


class _Args(msgspec.Struct, frozen=True):
    cni: _Ips = _Ips()


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    ipam: Ipam | None = None
    args: _Args = _Args()
    runtime_config: _Ips = _Ips()


def add(req: Request, host: Host) -> Result:
    """What was configured or asked for, in order."""
    ipam, ips = _load(req)
    return Result(ips=ips, routes=tuple(result.route(route) for route in ipam.routes), dns=ipam.dns)


def check(req: Request, host: Host) -> None:
    """An address that prevResult has too must have the gateway it has there; one that it lacks is fine, as in the reference."""
    _, ips = _load(req)
    prev = req.required_result()
    for ip in ips:
        bare = addresses.cidr(ip.address).ip
        there = next((each for each in prev.ips if addresses.cidr(each.address).ip == bare), None)
        if there and ip.gateway and ip.gateway != there.gateway:
            raise CniError(
                f"static: Failed to match addr {bare} on interface {req.ifname}",
                details=f"its gateway is {there.gateway or 'missing'} in prevResult and {ip.gateway} here",
            )


def delete(req: Request, host: Host) -> None:
    """Nothing was taken, so nothing is released, and no configuration is too broken for that."""


def _load(req: Request) -> tuple[Ipam, tuple[IpConfig, ...]]:
    """The `ipam` object, and the addresses after everyone who may override them. Raises CniError in the reference's words."""
    conf = req.config(Conf, prefix="")
    if conf.ipam is None:
        raise CniError("IPAM config missing 'ipam' key", details="add an `ipam` object with `type` and `addresses`")
    routed = tuple(_gateway(each) for each in conf.ipam.addresses)  # a bad gateway counts even if it is overridden below
    asked = _asked(args.parse(req.args, "IP", "GATEWAY"))
    # Later ones replace earlier ones; each is checked all the same.
    from_args, from_runtime = _listed(conf.args.cni.ips), _listed(conf.runtime_config.ips)
    ips = from_runtime or from_args or tuple(_configured(each) for each in routed) + asked
    families = [addresses.family(ip.address) for ip in ips]
    if result.layout(req.version) == result.OLD and len(families) != len(set(families)):
        raise CniError(f"CNI version {req.version} does not support more than 1 address per family")
    return conf.ipam, ips


def _gateway(each: Address) -> Address:
    return Address(each.address, str(addresses.ip(each.gateway)) if each.gateway else "")


def _configured(each: Address) -> IpConfig:
    text = _cidr(each.address, "the 'address' field is expected to be in CIDR notation")
    return IpConfig(address=text, gateway=each.gateway)


def _listed(texts: tuple[str, ...]) -> tuple[IpConfig, ...]:
    return tuple(IpConfig(address=_cidr(text, "an entry in the 'ips' field is NOT in CIDR notation")) for text in texts)


def _asked(pairs: dict[str, str]) -> tuple[IpConfig, ...]:
    """The addresses of CNI_ARGS `IP`, each with the last gateway of `GATEWAY` that lies in its network."""
    problem = "the 'ip' field is expected to be in CIDR notation"
    ips = [IpConfig(address=_cidr(text.strip(), problem)) for text in _commas(pairs, "IP")]
    for text in _commas(pairs, "GATEWAY"):
        try:
            gateway = addresses.ip(text.strip())
        except CniError:
            raise CniError(f"invalid gateway address: {text}") from None
        ips = [
            msgspec.structs.replace(ip, gateway=str(gateway)) if gateway in addresses.cidr(ip.address).network else ip
            for ip in ips
        ]
    return tuple(ips)


def _commas(pairs: dict[str, str], key: str) -> list[str]:
    return pairs[key].split(",") if pairs.get(key) else []


def _cidr(text: str, problem: str) -> str:
    try:
        return addresses.cidr(text).with_prefixlen
    except CniError:
        raise CniError(f"{problem}, got: '{text}'") from None
