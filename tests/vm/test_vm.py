"""The tests that this machine's kernel cannot run, under Debian's stock kernel."""

import re
import subprocess

import pytest

from tests import kernel
from tests.conftest import LACKING
from tests.lab import ROOT


def test_what_this_kernel_lacks_runs_in_a_vm(request: pytest.FixtureRequest) -> None:
    """All of them, in one machine; every one must have run and passed."""
    wanted = request.config.stash[LACKING]
    runner = kernel.vm_runner()
    if runner is None:
        pytest.skip(f"{len(wanted)} tests need another kernel: run them on Debian's own, or give IPCNI_SHARED (tests/kernel.py)")
    done = subprocess.run(
        [
            str(runner),
            *("-d", str(ROOT), "-t", "900", "--"),
            *(str(ROOT / ".venv/bin/python3"), "-m", "pytest", "-p", "no:cacheprovider", "--basetemp=/tmp/pytest", *wanted),
        ],
        capture_output=True,
        text=True,
    )
    closing = re.search(r"(\d+) passed in", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert closing
    assert int(closing[1]) == len(wanted), done.stdout
    print(f"{len(wanted)} tests ran in the virtual machine")
