"""The demo says no when something isn't true."""

import pathlib
import shutil
import subprocess

import pytest

from tests.lab import BIN, ENTRY_PATH, ROOT

# A portmap that publishes nothing, one that leaves its work undone, and a bridge that fails.
BROKEN = {
    "portmap": 'case $CNI_COMMAND in ADD) sed "s/.*\\"prevResult\\": *//" >/dev/null; echo "{\\"cniVersion\\": \\"0.2.0\\"}" ;; esac',
    "bridge": 'echo "{\\"code\\": 100, \\"msg\\": \\"no bridge today\\"}"; exit 1',
}


@pytest.mark.parametrize(("plugin", "said"), [("portmap", "NO  the node reaches pod a by http"), ("bridge", "no bridge today")])
def test_a_broken_plugin_fails_the_demo(plugin: str, said: str, tmp_path: pathlib.Path) -> None:
    shutil.copytree(BIN, tmp_path / "bin", symlinks=True)
    (tmp_path / "bin" / plugin).unlink()
    (tmp_path / "bin" / plugin).write_text(f"#!/bin/sh\n{BROKEN[plugin]}\n")
    (tmp_path / "bin" / plugin).chmod(0o755)
    (tmp_path / "bin" / "setup").write_text("#!/bin/sh\n")  # what is set up is the checkout's, and is to stay so
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        [str(tmp_path / "bin" / "demo")], capture_output=True, text=True, env={"PATH": ENTRY_PATH, "HOME": "/root"}, timeout=60
    )
    assert done.returncode == 1, done.stdout
    assert said in done.stdout
    assert "All true" not in done.stdout
