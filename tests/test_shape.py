"""The architecture as tests: who may import what, and that every plugin has all its parts."""

import ast
import pathlib

import pytest

from ipcni.protocol import delegate
from tests.lab import ROOT

PACKAGE = ROOT / "ipcni"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
PLUGINS = sorted(path.stem.replace("_", "-") for path in (PACKAGE / "plugins").glob("*.py") if "\ndef add(" in path.read_text())

# One module per outside thing.
ONLY_IN = {
    "sh": {"shell/process.py"},
    "jinja2": {"shell/jinja.py"},
    "filelock": {"shell/locks.py"},
    "subprocess": set(),
    "click": {str(path.relative_to(PACKAGE)) for folder in ("commands", "cli") for path in (PACKAGE / folder).glob("*.py")},
}
# What imports nothing of ours but what stands here.
PURE = {
    "model.py": set(),
    "errors.py": {"ipcni.model"},
    "names.py": {"ipcni.model"},
    "shell/batch.py": {"ipcni.model"},
    "settings.py": {"ipcni.errors"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Every module a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("library", ONLY_IN)
def test_one_module_for_each_outside_thing(library: str) -> None:
    users = {str(path.relative_to(PACKAGE)) for path in MODULES if any(name.split(".")[0] == library for name in imports(path))}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("module", PURE)
def test_the_nouns_know_nobody(module: str) -> None:
    ours = {name for name in imports(PACKAGE / module) if name.split(".")[0] == "ipcni"}
    assert ours <= PURE[module]


def test_plugins_start_no_processes_and_read_no_environment() -> None:
    for path in (PACKAGE / "plugins").glob("*.py"):
        text = path.read_text()
        assert "os.environ" not in text, path
        assert "ipcni.shell.run" not in text, path
        assert "ipcni.shell.process" not in text, path


def test_only_the_entries_touch_the_process() -> None:
    """No chdir, no environ, no setns, no signal handlers anywhere but where a process begins: a plugin's, a command's, a server's."""
    for path in MODULES:
        if path.name == "entry.py" or path.parent.name in ("commands", "serve"):
            continue
        text = path.read_text()
        for word in ("os.environ", "os.chdir", "setns", "signal.signal", "sys.stdout", "print("):
            # The one in a thread that ends with it (decision 0007), the other for those who begin a process.
            alone = (word, path.name) in (("setns", "inside.py"), ("signal.signal", "signals.py"))
            assert word not in text or alone, f"{word} in {path}"


def test_commands_hold_no_logic() -> None:
    for path in (PACKAGE / "commands").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 110, path


def test_files_are_short() -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 330, path


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_has_all_its_parts(plugin: str) -> None:
    """A launcher that is known as ours, a page in the docs, and templates unless it changes nothing."""
    assert delegate.is_ours(str(ROOT / "bin" / plugin))
    text = (PACKAGE / "plugins" / f"{plugin.replace('-', '_')}.py").read_text()
    assert (PACKAGE / "templates" / plugin).is_dir() == ("render(" in text)


def test_every_template_is_used() -> None:
    text = "".join(path.read_text() for path in MODULES)
    for template in (PACKAGE / "templates").rglob("*.j2"):
        assert str(template.relative_to(PACKAGE / "templates")) in text


def test_there_is_no_dry_run() -> None:
    """Of plugins, that is; installing files has one."""
    for path in MODULES:
        assert "dry_run" not in path.read_text() or path.name in ("install.py", "uninstall.py"), path
