"""`ipcni run`: a CNI runtime for one attachment."""

import os

import click

from ipcni import settings
from ipcni.cli import options
from ipcni.protocol import result
from ipcni.runtime.cache import CACHE_DIR, Cache
from ipcni.runtime.chain import Runtime
from ipcni.shell.run import Runner

VERBS = ["ADD", "CHECK", "DEL", "GC", "STATUS"]


@click.command(
    epilog="\b\nExample:\n  ip netns add blue\n  ipcni run ADD cbr0 --netns blue\n  ipcni run DEL cbr0 --netns blue\n\n"
    "A superset of cnitool: its three words and its environment variables do here what they do there."
)
@click.argument("verb", type=click.Choice(VERBS, case_sensitive=False))
@options.network
@click.argument("pod", required=False, default="", metavar="[NETNS]")
@options.attachment
@options.valid
@click.option("--cache-dir", default=CACHE_DIR, show_default=True, help="Where results are kept between ADD and DEL.")
def command(
    verb: str, network: str, pod: str, valid: tuple[str, ...], cache_dir: str, conf_dir: str, cni_path: str, **attachment: str
) -> None:
    """Call the plugins of a network, as a container runtime does.

    NETWORK is a file or the name of a network in the configuration folder; without it the one a kubelet would pick. ADD
    prints the result. GC deletes every cached attachment of the network but those that are --valid.
    """
    _, net = options.load(network, conf_dir)
    attachment["netns"] = attachment["netns"] or pod
    at = options.build(attachment, required=verb in ("ADD", "CHECK", "DEL"))
    path = cni_path or os.environ.get("CNI_PATH") or "/opt/cni/bin"
    runtime = Runtime(Runner(settings.load(os.environ), os.environ), dict(os.environ), path, Cache(cache_dir))
    match verb:
        case "ADD":
            click.echo(result.text(runtime.add(net, at)))
        case "CHECK":
            runtime.check(net, at)
        case "DEL":
            runtime.delete(net, at)
        case "GC":
            runtime.gc(net, options.listed(valid))
        case "STATUS":
            runtime.status(net)
