"""`ipcni explain`: the script that would run."""

import json
import os
import sys

import click

from ipcni import explain
from ipcni.cli import options
from ipcni.errors import CniError


@click.command(
    epilog="\b\nExamples:\n  ipcni explain /etc/cni/net.d/10-flannel.conflist\n  ipcni explain DEL cbr0 --netns blue --undo\n"
    "  ipcni explain ADD cbr0 --capability-args "
    '\'{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}\''
)
@click.argument("words", nargs=-1, metavar="[ADD|DEL|CHECK|GC] [CONFLIST|CONF|NETWORK|-]")
@click.option("--conf-dir", default="/etc/cni/net.d", show_default=True, help="Folder of network configurations.")
@click.option("--cni-path", default="", help="Folders of plugins, colon-separated (or CNI_PATH).", metavar="DIRS")
@options.attachment
@click.option("--format", "form", type=click.Choice(["sh", "markdown", "json"]), default="sh", show_default=True)
@click.option("--as-run", is_flag=True, help="Commands joined the way they are run (sh only).")
@click.option("--undo", is_flag=True, help="Under each command what takes it back when a later one fails.")
@options.valid
@click.option("--cache-dir", default="/var/lib/cni", show_default=True, help="Where runtimes keep results (for DEL and CHECK).")
def command(
    words: tuple[str, ...],
    conf_dir: str,
    cni_path: str,
    form: str,
    as_run: bool,
    undo: bool,
    valid: tuple[str, ...],
    cache_dir: str,
    **attachment: str,
) -> None:
    """Print the shell script that the plugins of a network would run, and run nothing.

    Without a file or name it takes the network a kubelet would pick; - reads what a runtime writes on a plugin's stdin. As root
    it looks at this node; without, what it can't see counts as absent, and it says so.
    """
    verb, name = explain.split(words)
    if valid and name == "-":
        raise CniError("--valid is of no use with -", details="what is on stdin has its own `cni.dev/valid-attachments`")
    attachment["netns"] = attachment["netns"] or "pod"
    at = options.build(attachment, required=True)
    source = (
        explain.Stdin(sys.stdin.buffer.read())
        if name == "-"
        else explain.Listed(*options.load(name, conf_dir), cache_dir, options.listed(valid))
    )
    path = explain.own_path(cni_path or os.environ.get("CNI_PATH", ""))
    told = explain.chain(source, verb, at, path, os.environ)
    if form == "json":
        click.echo(json.dumps(told.document(source, verb, at), indent=2, ensure_ascii=False))
    else:
        click.echo(told.text(source, verb, at, form, as_run=as_run, undo=undo), nl=False)
    if told.failure:
        raise told.failure
