"""subnet.env: what flanneld says about this node's part of the network (flannel sheet 3)."""

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import address as addresses

_KEYS = ("NETWORK", "IPV6_NETWORK", "SUBNET", "IPV6_SUBNET", "MTU", "IPMASQ")
_MAX_MTU = 4294967295


class SubnetEnv(msgspec.Struct, frozen=True):
    """Networks and this node's subnets as prefixes, IPv4 first; `mtu` in bytes; whether flanneld masquerades itself."""

    networks: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    mtu: int = 0
    ip_masq: bool = False


def read(path: str) -> SubnetEnv:
    """The file as flanneld writes it.

    Raises CniError 999 that names the file, the line or the keys that are missing, and what to look at.
    """
    try:
        return _parse(_lines(path), path)
    except CniError as error:
        raise CniError(
            f"failed to load flannel 'subnet.env' file: {error.msg}. Check the flannel pod log for this node.",
            error.code,
            error.details or f"flanneld writes {path} when it has a subnet for this node; `subnetFile` says where it is",
        ) from error


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read().split("\n")
    except OSError as error:
        raise CniError(f"open {path}: {(error.strerror or '').lower()}") from error


def _parse(lines: list[str], path: str) -> SubnetEnv:
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, equals, value = line.removesuffix("\r").partition("=")
        name = key.removeprefix("FLANNEL_")
        if not key.startswith("FLANNEL_") or name not in _KEYS:
            continue
        if not equals:
            raise CniError(f"{path} line {number}: {key} has no value", details=f"write {key}=…")
        values[name] = _checked(name, value)
    missing = [
        f"FLANNEL_{name}"
        for name in ("NETWORK", "IPV6_NETWORK", "SUBNET", "IPV6_SUBNET", "MTU", "IPMASQ")
        if name not in values and _counterpart(name) not in values
    ]
    if missing:
        raise CniError(f"{path} is missing {', '.join(missing)}")
    networks = [each for name in ("NETWORK", "IPV6_NETWORK") if name in values for each in values[name].split(",")]
    return SubnetEnv(
        networks=tuple(dict.fromkeys(networks)),
        subnets=tuple(values[name] for name in ("SUBNET", "IPV6_SUBNET") if name in values),
        mtu=int(values["MTU"]),
        ip_masq=values["IPMASQ"] == "true",
    )


def _counterpart(name: str) -> str:
    """The same key of the other address family, which will do as well."""
    if name in ("MTU", "IPMASQ"):
        return name
    return name.removeprefix("IPV6_") if name.startswith("IPV6_") else f"IPV6_{name}"


def _checked(name: str, value: str) -> str:
    """The value in canonical form: prefixes without host bits, the rest as it is."""
    if name == "MTU":
        if not value.isascii() or not value.isdigit():
            raise CniError(f'strconv.ParseUint: parsing "{value}": invalid syntax')
        digits = value.lstrip("0") or "0"
        if len(digits) > len(str(_MAX_MTU)) or int(digits) > _MAX_MTU:  # int() takes no more than some thousand digits
            raise CniError(f'strconv.ParseUint: parsing "{value}": value out of range')
        return digits
    if name == "IPMASQ":
        return value
    parts = value.split(",") if name.endswith("NETWORK") else [value]
    return ",".join(str(addresses.cidr(part).network) for part in parts)
