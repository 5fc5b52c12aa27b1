"""What a tuning configuration asks for, from all the places where it may say so (meta sheet 5.1, 5.3 to 5.5)."""

import json
import os
import re
from typing import Any

import msgspec

from ipcni.errors import CniError
from ipcni.protocol import address as addresses
from ipcni.protocol import args
from ipcni.protocol.request import Request

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
_DATA_DIR = "/run/cni/tuning"
_NOT_IN_A_PATH = re.compile(r"[\s=*?\[\]]")


class _Mac(msgspec.Struct, frozen=True):
    mac: str = ""


class _Cni(msgspec.Struct, frozen=True, rename="camel"):
    sysctl: dict[str, str] | None = None
    mac: str = ""
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    tx_q_len: int | None = None


class _Args(msgspec.Struct, frozen=True):
    cni: _Cni = _Cni()


class _Conf(msgspec.Struct, frozen=True, rename="camel"):
    """The plugin's keys; docs/plugins/tuning.md says what they do."""

    sysctl: dict[str, str] | None = None
    mac: str = ""
    promisc: bool = False
    mtu: int = 0
    allmulti: bool | None = None
    tx_q_len: int | None = None
    data_dir: str = ""
    runtime_config: _Mac = _Mac()
    args: _Args = _Args()


class Sysctl(msgspec.Struct, frozen=True):
    """A kernel setting: `key` as it was written, `path` below /proc/sys."""

    key: str
    path: str
    value: str


class Wanted(msgspec.Struct, frozen=True):
    """What the interface is to be like. `mac` is as somebody wrote it; None and the empty text mean: as it is."""

    sysctls: tuple[Sysctl, ...]
    mac: str
    mtu: int
    promisc: bool
    allmulti: bool | None
    txqlen: int | None
    backup: str

    @property
    def hardware(self) -> str:
        """The MAC in iproute2's form. Raises CniError for one that is none."""
        try:
            return addresses.mac(self.mac) if self.mac else ""
        except CniError as error:
            raise error.under(f"invalid args {self.mac} for MAC addr") from error

    @property
    def of_the_link(self) -> bool:
        """Whether the link itself is to be changed."""
        return bool(self.mac or self.mtu or self.promisc) or self.allmulti is not None or self.txqlen is not None


def load(req: Request) -> Wanted:
    """Everything that is asked for. Raises CniError for what cannot be understood."""
    conf = req.config(_Conf)
    cni = conf.args.cni
    asked = args.parse(req.args, "MAC").get("MAC", "")
    settings = {**(conf.sysctl or {}), **(cni.sysctl or {})}
    return Wanted(
        sysctls=tuple(Sysctl(key, _path(key, req.ifname), value) for key, value in settings.items()),
        mac=cni.mac or conf.runtime_config.mac or asked or conf.mac,
        mtu=conf.mtu if cni.mtu is None else cni.mtu,
        promisc=conf.promisc if cni.promisc is None else cni.promisc,
        allmulti=conf.allmulti if cni.allmulti is None else cni.allmulti,
        txqlen=conf.tx_q_len if cni.tx_q_len is None else cni.tx_q_len,
        backup=os.path.join(conf.data_dir or _DATA_DIR, f"{req.container_id}_{req.ifname}.json"),
    )


def _path(key: str, ifname: str) -> str:
    """Every dot is a slash but those of the interface's name, which stands where IFNAME stood."""
    converted = key.replace(".", "/").replace("IFNAME", ifname, 1)
    return os.path.normpath(f"/proc/sys/{converted}").removeprefix("/proc/sys/")


def check_paths(wanted: Wanted) -> None:
    """Raises CniError for a setting that is not one of the network's, and so not the pod's own."""
    for each in wanted.sysctls:
        if not each.path.startswith("net/") or _NOT_IN_A_PATH.search(each.path):
            raise CniError(
                f'invalid net sysctl key: "{each.path.removeprefix("/proc/sys/")}"',
                details="only settings below net belong to a pod; IFNAME stands for its interface",
            )


def check_duplicates(stdin: bytes) -> None:
    """Raises CniError where `sysctl` has the same key twice: which one is meant?"""

    def pairs(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return found

    top = json.loads(stdin.decode("utf-8", "replace"), object_pairs_hook=pairs)
    for key, value in top if isinstance(top, list) else ():
        if key.lower() == "sysctl" and isinstance(value, list):
            keys = [entry[0] for entry in value if isinstance(entry, tuple)]
            if len(keys) != len(set(keys)):
                twice = next(each for each in keys if keys.count(each) > 1)
                raise CniError("duplicated sysctl keys are not allowed", details=f"{twice} is there more than once")


def check_allowed(wanted: Wanted) -> None:
    """Raises CniError for a setting that the node's administrator has not allowed."""
    try:
        with open(ALLOWLIST, encoding="utf-8", errors="replace") as file:
            patterns = list(filter(None, map(str.strip, file)))
    except FileNotFoundError:
        return
    for each in wanted.sysctls:
        if not any(_matches(pattern, each.key) for pattern in patterns):
            raise CniError(
                f"Sysctl {each.key} is not allowed. Only the following sysctls are allowed: [{' '.join(patterns)}]",
                details=f"{ALLOWLIST} has a regular expression a line",
            )


def _matches(pattern: str, key: str) -> bool:
    try:
        return re.search(pattern, key) is not None
    except re.error as error:
        raise CniError(f"error parsing regexp: {error}: `{pattern}`", details=ALLOWLIST) from error
