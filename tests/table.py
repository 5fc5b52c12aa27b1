"""The README's table of plugins, made from the code: `python -m tests.table` writes it, and a test of the docs holds it to that."""

import re

from ipcni.install import plugins
from ipcni.protocol import result, skel
from tests.clients.test_clients import LINKS, USES
from tests.kernel import PROBES
from tests.lab import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- python -m tests.table -->\n", "<!-- end of the table -->\n"
_HEAD = ("plugin", "ADD DEL CHECK", "STATUS", "GC", "cniVersion", "back ends", "tested on", "beside Go's", "under")
_MARK = re.compile(r'mark\.kernel\("(\w+)"\)')


def table() -> str:
    """The lines between BEGIN and END."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(name) for name in plugins())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str) -> tuple[str, ...]:
    module = skel.load(name)
    versions: tuple[str, ...] = getattr(module, "VERSIONS", result.VERSIONS)
    needs = (*getattr(module, "TOOLS", ()), *(f"{link} links" for link in getattr(module, "LINKS", ())))
    runtimes = [script.removesuffix(".sh") for script, used in {**USES, "links.sh": LINKS}.items() if name in used]
    return (
        f"[`{name}`](docs/plugins/{name}.md)",
        "yes" if all(hasattr(module, verb) for verb in ("add", "delete")) else "no",
        ", ".join((*needs, *(["its own"] if hasattr(module, "status") else []))) or "always ready",
        "yes" if hasattr(module, "gc") else "nothing stays",
        f"{versions[0]} – {versions[-1]}",
        ", ".join(getattr(module, "BACKENDS", ())),
        _kernels(name),
        "yes" if _beside_go(name) else "Debian has none",
        ", ".join(runtimes),
    )


def _kernels(name: str) -> str:
    """Whether any kernel will do for its tests, and what of them needs Debian's."""
    needed = [link for link in getattr(skel.load(name), "LINKS", ()) if link in PROBES]
    if needed:
        return "Debian's kernel"
    text = "".join(path.read_text() for path in (ROOT / "tests" / "node").glob(f"test_{name.replace('-', '_')}*.py"))
    features = sorted(set(_MARK.findall(text)))
    return f"any kernel; {', '.join(features)} on Debian's" if features else "any kernel"


def _beside_go(name: str) -> bool:
    """Whether a test runs Go's plugin of that name, or of the name in its file's."""
    for folder in ("node", "peers"):
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            text = path.read_text()
            if re.search(r"\bGO\b", text) and (path.stem == f"test_{name.replace('-', '_')}" or f'"{name}"' in text):
                return name not in ("flannel", "dummy", "tap")
    return False


def main() -> None:
    """Puts the table into the README."""
    head, _, rest = README.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}{table()}{END}{tail}")


if __name__ == "__main__":
    main()
