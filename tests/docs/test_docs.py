"""Every command shown in the docs is run, and prints what the docs show."""

import json
import pathlib
import re
import subprocess
import tomllib
from collections.abc import Iterator

import msgspec
import pytest

from ipcni.install import plugins
from ipcni.settings import Settings
from tests import table
from tests.lab import ENTRY_PATH, ROOT, run

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# bin/test is what is running; the others take minutes or a hypervisor, and have tests of their own.
ELSEWHERE = ("bin/test",)

# A machine of the script's own: namespaces, with private /run, /var, /etc and /opt.
MACHINE = """
set -e
mount -t tmpfs tmpfs /run && mkdir -p /run/flannel
for folder in var etc opt; do
    mkdir -p "$LAB/$folder.upper" "$LAB/$folder.work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$LAB/$folder.upper,workdir=$LAB/$folder.work" overlay "/$folder"
done
rm -rf /var/lib/cni /var/lib/ipcni /var/log/ipcni /etc/cni /opt/cni
mount -t sysfs sysfs /sys
ip link set lo up
cd "$CHECKOUT"
exec bash -e -o pipefail "$LAB/script"
"""


def consoles(page: pathlib.Path) -> list[str]:
    """The console blocks of a page."""
    return re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)


def dialogue(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block and the lines shown under it."""
    command, shown = "", list[str]()
    for line in block.splitlines():
        if line.startswith(("# ", "$ ")) and (line.startswith("$ ") or re.match(r"# (bin/|ip |cat )", line)):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            shown.append(line)
    yield command, shown


def pattern(shown: list[str]) -> str:
    """What is shown as a regular expression: … stands for anything, numbers and made-up names for any."""
    text = re.escape("\n".join(shown))
    text = text.replace("…", r"[\s\S]*")
    text = re.sub(r"\d+(\\\.\d+)?(?=\\? m?s)", r"[\\d.]+", text)
    text = re.sub(r"veth[0-9a-f]{8}", "veth[0-9a-f]{8}", text)
    text = re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", text)
    return re.sub(r"10\\\.244\\\.1\\\.\d+", r"10\\.244\\.1\\.\\d+", text)


def test_the_table_of_plugins_is_made_from_the_code() -> None:
    assert f"{table.BEGIN}{table.table()}{table.END}" in README.read_text(), "python -m tests.table writes it anew"
    for name in plugins():
        assert (ROOT / "docs" / "plugins" / f"{name}.md").exists()


def test_the_readme_shows_what_happens(tmp_path: pathlib.Path) -> None:
    """All of its commands, one after the other, on one scratch machine."""
    commands = [(command, shown) for block in consoles(README) for command, shown in dialogue(block) if command not in ELSEWHERE]
    files = [shown for command, shown in commands if command.startswith("cat ")]
    assert len(commands) > 8
    assert files
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for entry in ("bin", "ipcni", ".venv", "pyproject.toml", "requirements.lock", "requirements-test.lock"):
        (checkout / entry).symlink_to(ROOT / entry)
    (checkout / "10-net.conflist").write_text("\n".join(files[0]) + "\n")
    assert json.loads((checkout / "10-net.conflist").read_text())
    lab = tmp_path / "lab"
    lab.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(lab)], check=True)
    try:
        script = "".join(f"({command}) >{lab}/{number}.out 2>&1\n" for number, (command, _) in enumerate(commands))
        (lab / "script").write_text(script)
        done = subprocess.run(
            ["unshare", "--mount", "--net", "--propagation", "private", "bash", "-c", MACHINE],
            env={"PATH": ENTRY_PATH, "LAB": str(lab), "CHECKOUT": str(checkout), "HOME": "/root"},
            capture_output=True,
            text=True,
        )
        said = [
            (lab / f"{number}.out").read_text() if (lab / f"{number}.out").exists() else "" for number in range(len(commands))
        ]
        assert done.returncode == 0, "\n".join(filter(None, said))[-2000:] + done.stderr
        for (command, shown), text in zip(commands, said, strict=True):
            assert re.fullmatch(pattern(shown), text.strip("\n")), f"{command} said:\n{text}\nnot:\n" + "\n".join(shown)
    finally:
        subprocess.run(["umount", "-l", str(lab)], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: pathlib.Path) -> None:
    for name in re.findall(r"`((?:tests|docs|bin|ipcni|benchmarks)/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page}: {name}"


def test_the_settings_page_is_complete() -> None:
    """Every key with its default."""
    text = (ROOT / "docs" / "settings.md").read_text()
    for field, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        assert f"| `{field}` | `{default}` |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_json_and_toml(page: pathlib.Path) -> None:
    for text in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
        json.loads(text)
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        msgspec.convert(tomllib.loads(text), Settings)


def test_the_options_that_explain_has_are_all_on_its_page() -> None:
    text = (ROOT / "docs" / "explain.md").read_text()
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", run(str(ROOT / "bin/ipcni"), "explain", "--help").stdout, re.MULTILINE)
    assert len(options) > 8
    assert [option for option in options if option != "--help" and f"`{option}`" not in text] == []
