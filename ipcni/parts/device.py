"""Which link of the node a host-device configuration means (main sheet 7)."""

import os

import msgspec

from ipcni.errors import CniError
from ipcni.parts.ipam import Ipam
from ipcni.protocol import address as addresses
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns
from ipcni.shell.iproute import Link

_PCI, _AUXILIARY = "/sys/bus/pci/devices", "/sys/bus/auxiliary/devices"
_USERSPACE = ("vfio-pci", "uio_pci_generic", "igb_uio")


class _Runtime(msgspec.Struct, frozen=True, rename={"device_id": "deviceID"}):
    device_id: str = ""


class Conf(msgspec.Struct, frozen=True, rename={"pci_bus_id": "pciBusID", "runtime_config": "runtimeConfig"}):
    """The plugin's keys; docs/plugins/host-device.md says what they do."""

    device: str = ""
    hwaddr: str = ""
    kernelpath: str = ""
    pci_bus_id: str = ""
    ipam: Ipam = Ipam()
    dns: Dns = Dns()
    runtime_config: _Runtime = _Runtime()


class Device(msgspec.Struct, frozen=True):
    """A link by its name on the node, or, without one, a PCI device that a program drives and no kernel link belongs to.

    `found` is that link where all had to be looked at for it.
    """

    link: str = ""
    found: Link | None = None


def find(req: Request, host: Host) -> Device:
    """The device that is asked for. Raises CniError naming the key by which there is none."""
    conf = req.config(Conf)
    pci, auxiliary = conf.pci_bus_id, ""
    if wanted := conf.runtime_config.device_id:
        pci, auxiliary = _by_id(wanted)
    if not (conf.device or conf.hwaddr or conf.kernelpath or pci or auxiliary):
        raise CniError('specify either "device", "hwaddr", "kernelpath" or "pciBusID"')
    if pci and _driver(pci) in _USERSPACE:
        return Device()
    if conf.device:
        return Device(conf.device)
    if conf.hwaddr:
        found = _by_mac(conf.hwaddr, host)
        return Device(found.name, found)
    if conf.kernelpath:
        return Device(_by_path(conf.kernelpath))
    return Device(_by_pci(pci) if pci else _first(f"{_AUXILIARY}/{auxiliary}/net"))


def _by_id(wanted: str) -> tuple[str, str]:
    """A device id as a PCI address or as the name of an auxiliary device."""
    if os.path.basename(wanted) == wanted:
        if os.path.exists(f"{_PCI}/{wanted}"):
            return wanted, ""
        if os.path.exists(f"{_AUXILIARY}/{wanted}"):
            return "", wanted
    raise CniError(
        f"runtime config DeviceID {wanted} not found or unsupported", details=f"it is neither in {_PCI} nor in {_AUXILIARY}"
    )


def _driver(pci: str) -> str:
    folder = f"{_PCI}/{pci}"
    if os.path.basename(pci) != pci or not os.path.isdir(folder):
        raise CniError(
            f"error with host device: lstat {folder}: no such file or directory", details="`pciBusID`, as lspci -D prints it"
        )
    return os.path.basename(os.path.realpath(f"{folder}/driver"))


def _by_mac(text: str, host: Host) -> Link:
    try:
        wanted = addresses.mac(text)
    except CniError as error:
        raise error.under(f'failed to parse MAC address "{text}"') from error
    for link in host.facts.links().values():
        if link.mac == wanted:
            return link
    raise CniError("failed to find physical interface", details=f"no link of the node has the address {wanted}: see `hwaddr`")


def _by_path(path: str) -> str:
    if os.path.normpath(path) != path.rstrip("/") or not path.startswith("/sys/devices/"):
        raise CniError(f'kernel device path "{path}" must be absolute and begin with /sys/devices/', details="`kernelpath`")
    return _first(f"{path}/net")


def _by_pci(pci: str) -> str:
    """Of a PCI device, or of the virtio device on it."""
    folder = f"{_PCI}/{pci}"
    for place in ("", *(f"/{name}" for name in sorted(os.listdir(folder)) if name.startswith("virtio"))):
        if os.path.isdir(f"{folder}{place}/net"):
            return _first(f"{folder}{place}/net")
    raise CniError(
        f"no net directory under pci device {pci}", details="no network driver has taken it: `lspci -k` says which one has"
    )


def _first(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CniError(f'failed to read directory {folder}: "open {folder}: {reason}"') from error
    if not names:
        raise CniError(f"failed to find network device in path {folder}")
    return names[0]
