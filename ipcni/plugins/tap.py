"""tap: a tap device in the pod, for a virtual machine (main sheet 10)."""

import msgspec

from ipcni import names
from ipcni.errors import NOT_AVAILABLE, CniError
from ipcni.model import Plan
from ipcni.parts import child, interface, ipam
from ipcni.parts.child import Mac
from ipcni.parts.ipam import Ipam
from ipcni.protocol import delegate, ready
from ipcni.protocol.host import Host
from ipcni.protocol.request import Request
from ipcni.protocol.result import Dns, Result
from ipcni.shell.render import render

TOOLS = ("ip",)
_IDS = 1 << 32
_DEVICE = "/dev/net/tun"


class Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/tap.md says what they do."""

    multi_queue: bool = False
    mtu: int = 0
    mac: str = ""
    owner: int | None = None
    group: int | None = None
    selinux_context: str = ""
    bridge: str = ""
    ipam: Ipam = Ipam()
    dns: Dns = Dns()
    runtime_config: Mac = Mac()


def add(req: Request, host: Host) -> Result:
    """Device, lease, addresses; up even without any."""
    conf = req.config(Conf)
    for key, value in (("owner", conf.owner), ("group", conf.group)):
        if value is not None and not 0 <= value < _IDS:
            raise CniError(f"invalid {key} {value}", details=f"`{key}` is a number from 0 to {_IDS - 1}")
    ipam.check_version(req, conf.ipam.type)
    interface.check_name(req.ifname)
    mac = child.asked_mac(req, conf.mac, conf.runtime_config) or child.mac(req, host)
    if host.live:
        interface.open_netns(host.facts, req.netns)
    with host.locked(names.lock("tap", req.attachment)):
        if conf.bridge and host.live and host.facts.device(conf.bridge, req.netns) is None:
            raise CniError(
                f"failed to get bridge {conf.bridge}: Link not found", details=f"`bridge` is to be in {req.netns_path}"
            )
        lease = child.early_lease(req, host, conf.ipam.type)
        # Nobody has opened the device yet, so it has no carrier, and no duplicate could be detected.
        notify = child.notify(req, six=False)
        return child.attach(req, host, _device(req, conf, mac), mac, lease, conf.ipam.type, conf.dns, notify, settle=False)


def _device(req: Request, conf: Conf, mac: str) -> Plan:
    options = ["multi_queue"] if conf.multi_queue else []
    options += ["user", str(conf.owner)] if conf.owner is not None else []
    options += ["group", str(conf.group)] if conf.group is not None else []
    if conf.owner is not None and conf.group is not None and not conf.selinux_context:
        # As the reference makes it by system calls then: with the header that virtio uses, and packet information.
        options += ["vnet_hdr"] if conf.multi_queue else ["vnet_hdr", "pi"]
    return render(
        "tap/link.sh.j2",
        pod=req.netns,
        label=conf.selinux_context,
        temporary=child.temporary(req),
        options=options,
        mtu=max(conf.mtu, 0),
        mac=mac,
        ifname=req.ifname,
        bridge=conf.bridge,
    )


def delete(req: Request, host: Host) -> None:
    """Removes device and lease; what is gone already is fine."""
    conf = req.config(Conf)
    child.delete(req, host, conf.ipam.type)


def check(req: Request, host: Host) -> None:
    """The device is there, its addresses and routes are as prevResult says, and the lease is there."""
    prev, link = child.check(req, host, req.config(Conf).ipam.type, "tun")
    interface.check(req, host, prev, link)


def status(req: Request, host: Host) -> None:
    """The kernel makes taps, there is the tool that labels, and the IPAM plugin is ready, where they are asked for."""
    conf = req.config(Conf)
    if fault := host.facts.fault(_DEVICE):
        raise CniError(f"this kernel makes no taps: {_DEVICE}: {fault}", NOT_AVAILABLE, "see whether `modprobe tun` says why")
    if conf.selinux_context:
        ready.require(host, tools=("runcon",))
    if conf.ipam.type:
        delegate.call(req, host, conf.ipam.type)


def gc(req: Request, host: Host) -> None:
    """Has IPAM release what nobody holds; devices are gone with their pods."""
    ipam.release(req, host, req.config(Conf).ipam.type, [])
