"""Installing on a node: whole files only, nothing of others lost, and the way back."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from ipcni import install
from ipcni.errors import CniError
from ipcni.protocol import delegate
from tests.lab import BIN, GO, ROOT, Node, run

OURS = ("bridge", "flannel", "host-local", "loopback", "portmap", "static")
BOTH = sorted(set(install.plugins()) & {path.name for path in GO.iterdir()})


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "bin"


@pytest.fixture
def with_go(folder: pathlib.Path) -> pathlib.Path:
    """A folder that has Go's plugins, and one that nobody has but its owner."""
    shutil.copytree(GO, folder)
    (folder / "calico").write_text("#!/bin/sh")
    return folder


def listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ipcni(*argv: str) -> subprocess.CompletedProcess[str]:
    return run(str(BIN / "ipcni"), *argv, check=False)


def test_every_plugin_is_known() -> None:
    assert set(OURS) <= set(install.plugins())
    assert all((BIN / name).is_symlink() for name in install.plugins())


def test_an_installed_plugin_works(node: Node, folder: pathlib.Path) -> None:
    """Wherever it is called from, with a poor environment."""
    done = ipcni("install", "--cni-bin-dir", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"installed: {folder}/{name}" for name in install.plugins()]
    conf = {
        "cniVersion": "1.1.0",
        "name": "n",
        "type": "bridge",
        "ipam": {"type": "host-local", "dataDir": node.data_dir, "subnet": "10.7.0.0/24"},
    }
    pod = node.pod()
    node.call("ADD", conf, pod, bin_dir=folder, env={"PATH": "/usr/bin"}).ok()
    (record,) = node.journal()
    assert {"host-local", "bridge"} == {command["plugin"] for command in record["commands"]}, "the delegate is known as ours"
    node.call("DEL", conf, pod, bin_dir=folder).ok()


def test_a_plugin_looks_for_no_packages(tmp_path: pathlib.Path) -> None:
    """It has been told where they are: looking (site) takes Python a quarter of its start."""
    script = tmp_path / "plugin"
    code = b"import filelock, jinja2, markupsafe, msgspec, sh; print('site' in sys.modules)"
    script.write_bytes(install.launcher().replace(b"main(sys.argv[0])", code))
    script.chmod(0o755)
    assert run(str(script)).stdout == "False\n"


def test_installing_compiles_all_templates(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """So that no pod waits for it."""
    package = tmp_path / "lib" / "ipcni"
    shutil.copytree(ROOT / "ipcni", package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from ipcni import install; install.install(sys.argv[2])"
    run(str(BIN / ".venv/bin/python3"), "-c", code, str(package.parent), str(folder))
    templates = list((package / "templates").rglob("*.j2"))
    assert len(list((package / "templates" / "__pycache__").glob("*/*.py"))) == len(templates) > 50


def test_again_changes_nothing(folder: pathlib.Path) -> None:
    install.install(str(folder))
    before = listing(folder)
    install.install(str(folder))
    assert listing(folder) == before


def test_another_suite_is_not_touched(with_go: pathlib.Path) -> None:
    before = listing(with_go)
    done = ipcni("install", "--cni-bin-dir", str(with_go))
    assert done.returncode == 1
    assert done.stderr.startswith(f"ipcni: {with_go} has plugins of another suite: {', '.join(BOTH)}; --force")
    assert len(done.stderr.splitlines()) == 1
    assert listing(with_go) == before


def test_force_keeps_what_it_replaces(with_go: pathlib.Path) -> None:
    before = listing(with_go)
    assert ipcni("install", "--cni-bin-dir", str(with_go), "--force").returncode == 0
    assert all(delegate.is_ours(str(with_go / name)) for name in OURS)
    assert (with_go / install.SAVED / "bridge").read_bytes() == before["bridge"]
    assert (with_go / "calico").read_bytes() == before["calico"]
    install.install(str(with_go))  # an upgrade is no force
    assert (with_go / install.SAVED / "bridge").read_bytes() == before["bridge"]
    assert ipcni("uninstall", "--cni-bin-dir", str(with_go)).returncode == 0
    assert listing(with_go) == before
    assert os.access(with_go / "bridge", os.X_OK)


def test_only_some(with_go: pathlib.Path) -> None:
    ipcni("install", "--cni-bin-dir", str(with_go), "--plugin", "flannel")
    assert delegate.is_ours(str(with_go / "flannel"))
    assert not delegate.is_ours(str(with_go / "bridge"))
    done = ipcni("install", "--cni-bin-dir", str(with_go), "--plugin", "nosuch")
    assert (done.returncode, done.stderr.startswith("ipcni: ipcni has no plugin nosuch; it has bandwidth, bridge")) == (1, True)


def test_a_dry_run_only_talks(with_go: pathlib.Path) -> None:
    before = listing(with_go)
    done = ipcni("install", "--cni-bin-dir", str(with_go), "--force", "--dry-run")
    assert f"would be replaced, the old one is kept: {with_go}/bridge" in done.stdout
    assert f"would be installed: {with_go}/flannel" in done.stdout
    assert listing(with_go) == before


@pytest.mark.parametrize("native", [b"\x7fELF\n" + delegate.MARK, None], ids=["native", "no compiler"])
@pytest.mark.parametrize("failing", [*range(1, 7), *range(7, 2 * len(install.plugins()) + 6, 5)])
def test_an_interrupted_install_leaves_every_plugin_callable(
    with_go: pathlib.Path, failing: int, native: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any of its renames; and uninstall puts all back."""
    before = listing(with_go)
    calls = 0
    replace = os.replace

    def stopping(src: str, dst: str) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        replace(src, dst)

    monkeypatch.setattr(install, "client", lambda: native)
    monkeypatch.setattr(os, "replace", stopping)
    with contextlib.suppress(CniError):  # the last numbers are beyond its last rename
        install.install(str(with_go), force=True)
    assert calls == min(failing, 1 + len(install.plugins()) if native is None else 2 + 2 * len(install.plugins()))
    monkeypatch.undo()
    for name in BOTH:
        content = (with_go / name).read_bytes()
        assert content in (before[name], native or install.launcher())
        if content == native:
            assert (with_go / install.BEHIND / name).read_bytes() == install.launcher()
        assert os.access(with_go / name, os.X_OK)
    if (with_go / install.MANIFEST).exists():
        install.uninstall(str(with_go))
    assert listing(with_go) == before


def test_a_changed_file_is_left_alone(folder: pathlib.Path) -> None:
    install.install(str(folder))
    (folder / "bridge").write_text("somebody else's by now")
    done = ipcni("uninstall", "--cni-bin-dir", str(folder))
    assert f"left alone: it has been changed since: {folder}/bridge" in done.stdout
    assert listing(folder) == {"bridge": b"somebody else's by now"}


def test_uninstall_where_nothing_is(folder: pathlib.Path) -> None:
    done = ipcni("uninstall", "--cni-bin-dir", str(folder))
    assert (done.returncode, done.stderr.startswith(f"ipcni: ipcni has installed nothing in {folder}; ")) == (1, True)


def test_a_network_comes_with_it(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "net.d"
    assert ipcni("install", "--cni-bin-dir", str(folder), "--cni-conf-dir", str(conf)).returncode == 0
    network = json.loads((conf / install.CONFLIST).read_text())
    assert [plugin["type"] for plugin in network["plugins"]] == ["flannel", "portmap"]
    done = ipcni("install", "--cni-bin-dir", str(folder), "--cni-conf-dir", str(conf))
    assert (done.returncode, "has a network configuration already: 10-flannel.conflist" in done.stderr) == (1, True)


def test_a_folder_that_cannot_be_written() -> None:
    done = ipcni("install", "--cni-bin-dir", "/proc/nowhere")
    assert (done.returncode, done.stderr.startswith("ipcni: cannot write to /proc/nowhere: ")) == (1, True)
