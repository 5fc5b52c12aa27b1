"""What this machine's kernel cannot run, under Debian's stock kernel, in virtual machines (tests/kernel.py says where those come from)."""

import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable

import pytest

from tests import kernel
from tests.clients.test_clients import SHARED
from tests.conftest import LACKING, RAN_IN_VM
from tests.lab import BIN, ROOT

pytestmark = pytest.mark.skipif(
    kernel.vm_runner() is None, reason="the tests that this kernel cannot run need Debian's, or IPCNI_SHARED (tests/kernel.py)"
)


NOT_NEEDED = (
    "./.vm-*",
    "./.git",
    "./.wheels",
    "./.*_cache",
    "./.hypothesis",
    "mypy",
    "mypyc",
    "*__mypyc*",
    "ruff",
    "pip",
    "setuptools",
)


def in_vm(*argv: str) -> str:
    """What a command says in a machine that has this checkout and the shared clients. The command must succeed."""
    with tempfile.TemporaryDirectory(prefix=".vm-", dir=ROOT) as folder:
        tarball = pathlib.Path(folder) / "checkout.tar"
        subprocess.run(["tar", "-c", "-f", tarball, *(f"--exclude={each}" for each in NOT_NEEDED), "-C", ROOT, "."], check=False)
        options = ["-d", str(ROOT), "-r", str(SHARED), "-t", "1500"]
        command = [str(kernel.vm_runner()), *options, "--", str(ROOT / "tests/vm/enter.sh"), str(ROOT), str(tarball), *argv]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{done.stdout}\n{done.stderr}"[-20_000:], pytrace=False)
    return done.stdout


def test_what_this_kernel_lacks(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """All of it, in one machine; every test must have run and passed."""
    wanted = request.config.stash[LACKING]
    said = in_vm(
        *(
            str(ROOT / ".venv/bin/python3"),
            "-m",
            "pytest",
            "-n",
            "2",
            "-p",
            "no:cacheprovider",
            "--basetemp=/tmp/pytest",
            "--durations=5",
        ),
        f"--way={request.config.getoption('--way')}",
        *wanted,
    )
    closing = re.search(r"(\d+) passed in", said)
    assert closing
    assert int(closing[1]) == len(wanted), said
    record_property(RAN_IN_VM, len(wanted))


def test_the_reference_script_for_links() -> None:
    """A client that makes every kind of link; nothing is skipped there."""
    said = in_vm(str(SHARED / "clients" / "links.sh"), str(BIN))
    assert "\nPASS" in said
    for word in ("FAIL", "WEAK", "SKIP"):
        assert f"\n{word}" not in said, said
