"""The `ipam` object of the dhcp plugin (IPAM sheet 4.1)."""

import re

import msgspec

from ipcni.errors import CniError
from ipcni.protocol.quoting import quote
from ipcni.protocol.request import Request

SUBNET_MASK, ROUTER, HOST_NAME, DOMAIN_NAME_SERVER, DOMAIN_NAME, VENDOR_CLASS, CLIENT_ID, USER_CLASS = 1, 3, 12, 6, 15, 60, 61, 77
NAMES = {
    "dhcp-client-identifier": CLIENT_ID,
    "subnet-mask": SUBNET_MASK,
    "routers": ROUTER,
    "host-name": HOST_NAME,
    "user-class": USER_CLASS,
    "vendor-class-identifier": VENDOR_CLASS,
}
_UNASKED = (SUBNET_MASK, ROUTER, DOMAIN_NAME, DOMAIN_NAME_SERVER)  # what is asked for where nothing is
_PAD, _END = 0, 255  # no options but marks
_LONGEST = 255
_LONGEST_ID = 254


class Provide(msgspec.Struct, frozen=True, rename="camel"):
    """One element of `provide`: an option to send."""

    option: str = ""
    value: str = ""
    from_arg: str = ""


class Ask(msgspec.Struct, frozen=True, rename="camel"):
    """One element of `request`: an option to ask for."""

    option: str = ""
    skip_default: bool = False


class Ipam(msgspec.Struct, frozen=True, rename="camel"):
    """The `ipam` object."""

    daemon_socket_path: str = ""
    provide: tuple[Provide, ...] = ()
    request: tuple[Ask, ...] = ()
    priority: int = 0


class Conf(msgspec.Struct, frozen=True):
    ipam: Ipam | None = None


def load(req: Request) -> Ipam:
    """The `ipam` object. Raises CniError where there is none."""
    conf = req.config(Conf, prefix="")
    if conf.ipam is None:
        raise CniError("IPAM config missing 'ipam' key", details="add an `ipam` object with the `type` dhcp")
    return conf.ipam


def key(network: str, container_id: str, ifname: str) -> str:
    """What an attachment is known by, to the daemon and to the DHCP server."""
    return f"{container_id}/{network}/{ifname}".encode()[:_LONGEST_ID].decode("utf-8", "ignore")


def sent(ipam: Ipam, args: str, name: str) -> dict[int, str]:
    """The options to send, as hex digits; `name` is the attachment's, which the server knows it by.

    Raises CniError in the reference's words.
    """
    given = dict(pair.split("=", 1) for pair in args.split(";") if "=" in pair)
    found = {CLIENT_ID: b"\0" + name.encode()}
    for each in ipam.provide:
        number = option(each.option)
        for value in (each.value, given.get(each.from_arg, "") if each.from_arg else ""):
            data = value.encode("utf-8", "surrogateescape")
            if len(data) > _LONGEST:
                raise CniError(f"value too long for option {quote(each.option)}: {quote(value)}")
            if data and number not in (_PAD, _END):
                found[number] = data
    return {number: data.hex() for number, data in found.items()}


def asked(ipam: Ipam) -> tuple[int, ...]:
    """The parameter request list. Raises CniError in the reference's words."""
    wanted = [option(each.option) for each in ipam.request if each.option]
    if not any(each.skip_default for each in ipam.request):
        wanted += [ROUTER, SUBNET_MASK]
    return tuple(number for number in dict.fromkeys(wanted) if number not in (_PAD, _END)) or _UNASKED


def option(text: str) -> int:
    """The number of an option by its name or as decimal digits. Raises CniError in the reference's words."""
    if text in NAMES:
        return NAMES[text]
    digits = text.lstrip("0") or "0"
    problem = "" if re.fullmatch("[0-9]+", text) else "invalid syntax"
    if not problem and (len(digits) > 3 or int(digits) > 255):
        problem = "value out of range"
    if problem:
        raise CniError(
            f"Can not parse option {quote(text)}: Can not parse option: strconv.ParseUint: parsing {quote(text)}: {problem}",
            details=f"an option is a number up to 255, or one of {', '.join(NAMES)}",
        )
    return int(digits)
