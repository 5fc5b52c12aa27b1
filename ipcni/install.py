"""Putting the plugins into a folder of a node, and taking them away again.

A folder is never half changed in a way that matters: each file is replaced at once, plugins come before the configuration that
names them, and what another suite had there is kept in SAVED until uninstall puts it back.
"""

import contextlib
import hashlib
import importlib.machinery
import json
import os
import pkgutil
import sys
from collections.abc import Iterator

import msgspec

import ipcni.plugins
from ipcni import __version__, settings
from ipcni.errors import CniError
from ipcni.native import client
from ipcni.protocol import delegate
from ipcni.serve import wire
from ipcni.shell import files, jinja

BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
SAVED = ".ipcni-saved"  # a folder, and a hidden one: no runtime takes it for a plugin
BEHIND = ".ipcni"  # the plugins themselves, where a native program stands in their places
MANIFEST = ".ipcni-manifest.json"
CONFLIST = "10-flannel.conflist"
_NEEDED = ("filelock", "jinja2", "markupsafe", "msgspec", "sh")
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "cbr0",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Step(msgspec.Struct, frozen=True):
    """One file: what happens to it, in words for people."""

    path: str
    what: str


def plugins() -> tuple[str, ...]:
    """The names of all plugins of this suite."""
    names = []
    for module in pkgutil.iter_modules(ipcni.plugins.__path__):
        path = os.path.join(ipcni.plugins.__path__[0], f"{module.name}.py")
        with open(path, encoding="utf-8") as file:
            if "\ndef add(req: Request, host: Host) -> Result:" in file.read():
                names.append(module.name.replace("_", "-"))
    return tuple(sorted(names))


def launcher() -> bytes:
    """The file that each plugin is: it calls the Python that runs this, whatever the PATH of the runtime.

    It says itself where our packages are: for Python to look for them (site) takes 3 ms.
    """
    return (
        f"#!{sys.executable} -IS\n"
        f"# {delegate.MARK.decode()}, version {__version__}; `ipcni uninstall` removes it\n"
        f"import sys\n\nsys.path += {_folders()}\n\nfrom ipcni.entry import main\n\nmain(sys.argv[0])\n"
    ).encode()


def _folders() -> list[str]:
    """Where Python has found us and what we need."""
    found = [os.path.dirname(ipcni.__path__[0])]
    for name in _NEEDED:
        spec = importlib.machinery.PathFinder.find_spec(name)
        assert spec
        assert spec.origin
        found.append(os.path.dirname(os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin))
    return list(dict.fromkeys(found))


def install(
    bin_dir: str, conf_dir: str = "", wanted: tuple[str, ...] = (), *, force: bool = False, dry_run: bool = False
) -> list[Step]:
    """Puts the wanted plugins (default: all) into `bin_dir`, and a network for flannel into `conf_dir` if it is given.

    Returns what was done, or would be with `dry_run`. Raises CniError, before anything is changed, for a plugin that isn't ours, a file
    of another suite that is in the way (unless `force`: then it is kept), a folder that cannot be written, or a configuration that is
    there already.
    """
    names = wanted or plugins()
    if unknown := sorted(set(names) - set(plugins())):
        raise CniError(f"ipcni has no plugin {', '.join(unknown)}", details=f"it has {', '.join(plugins())}")
    foreign = [name for name in names if _foreign(os.path.join(bin_dir, name))]
    if foreign and not force:
        raise CniError(
            f"{bin_dir} has plugins of another suite: {', '.join(foreign)}",
            details="--force replaces them and keeps them for `ipcni uninstall`",
        )
    conflist = _conflist(conf_dir, force=force) if conf_dir else ""
    native = client()
    steps = [Step(f"{bin_dir}/{name}", "replaced, the old one is kept" if name in foreign else "installed") for name in names]
    if conflist:
        steps.append(Step(conflist, "written"))
    if native is None:
        steps.append(Step(bin_dir, "no C compiler here, so `ipcni serve` is of no use; each call starts Python"))
    if not dry_run:
        jinja.load_all()  # which compiles them now, and not when the first pods wait
        with _writing(bin_dir):
            _put_all(bin_dir, _files(names, native), foreign)
        if conflist:
            with _writing(conf_dir):
                files.put(conflist, json.dumps(_NETWORK, indent=2).encode() + b"\n", 0o644)
    return steps


def uninstall(bin_dir: str, *, dry_run: bool = False) -> list[Step]:
    """Removes our plugins from `bin_dir` and puts back what was there before.

    A file that is not as we installed it is left alone. Raises CniError when nothing of ours is there.
    """
    known = _manifest(bin_dir)
    if not known:
        raise CniError(f"ipcni has installed nothing in {bin_dir}", details=f"it would have left {bin_dir}/{MANIFEST}")
    steps = []
    with _writing(bin_dir):
        for name, digest in sorted(known.items()):
            path, saved = os.path.join(bin_dir, name), os.path.join(bin_dir, SAVED, name)
            now = _digest(path)
            if now and now == _digest(saved):
                if not dry_run:  # the install stopped before it replaced this one
                    os.unlink(saved)
            elif now not in (digest, ""):
                steps.append(Step(path, "left alone: it has been changed since"))
            elif os.path.exists(saved):
                steps.append(Step(path, "given back"))
                if not dry_run:
                    os.replace(saved, path)
            elif os.path.exists(path):
                steps.append(Step(path, "removed"))
                if not dry_run:
                    os.unlink(path)
        if not dry_run:
            os.unlink(os.path.join(bin_dir, MANIFEST))
            for folder in (SAVED, BEHIND):
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(bin_dir, folder))
    return steps


def _files(names: tuple[str, ...], native: bytes | None) -> dict[str, bytes]:
    """What goes where: with a native program it stands in the plugins' places, and they stand in BEHIND."""
    if native is None:
        return dict.fromkeys(names, launcher())
    where = f"{wire.build()} {settings.load({}).run_dir}/{wire.SOCKET}\n".encode()
    behind = {f"{BEHIND}/{name}": launcher() for name in names}
    return {f"{BEHIND}/serve": where, **behind, **dict.fromkeys(names, native)}


def _put_all(bin_dir: str, wanted: dict[str, bytes], foreign: list[str]) -> None:
    os.makedirs(bin_dir, exist_ok=True)
    # The manifest first: were we stopped half way, uninstall knows of every file that may be ours.
    manifest = {**_manifest(bin_dir), **{name: hashlib.sha256(data).hexdigest() for name, data in wanted.items()}}
    files.put(os.path.join(bin_dir, MANIFEST), json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n", 0o644)
    for name, data in wanted.items():
        path = os.path.join(bin_dir, name)
        if name in foreign:
            os.makedirs(os.path.join(bin_dir, SAVED), mode=0o700, exist_ok=True)
            saved = os.path.join(bin_dir, SAVED, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(saved)
            os.link(path, saved)  # the old plugin stays callable until the moment it is replaced
        files.put(path, data, 0o755)


def _foreign(path: str) -> bool:
    return os.path.lexists(path) and not delegate.is_ours(path)


def _conflist(conf_dir: str, *, force: bool) -> str:
    """Where the network goes. Raises CniError where there is a configuration: the first one by name is what a kubelet takes."""
    there = sorted(
        name
        for name in (os.listdir(conf_dir) if os.path.isdir(conf_dir) else [])
        if name.endswith((".conf", ".conflist", ".json"))
    )
    if there and not force:
        raise CniError(
            f"{conf_dir} has a network configuration already: {', '.join(there)}",
            details="leave out --cni-conf-dir to keep it, or have --force write ours beside it",
        )
    return os.path.join(conf_dir, CONFLIST)


def _manifest(bin_dir: str) -> dict[str, str]:
    try:
        with open(os.path.join(bin_dir, MANIFEST), "rb") as file:
            return msgspec.json.decode(file.read(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise CniError(f"cannot read {bin_dir}/{MANIFEST}: {error}") from error


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CniError(
            f"cannot write to {folder}: {error.strerror}", details="installing needs root, and a folder on a writable disk"
        ) from error
