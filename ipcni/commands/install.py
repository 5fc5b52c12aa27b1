"""`ipcni install`: the plugins into a node's folder."""

import click

from ipcni import install


@click.command(
    epilog="\b\nExamples:\n  ipcni install --dry-run\n  ipcni install --cni-bin-dir /opt/cni/bin --cni-conf-dir /etc/cni/net.d"
)
@click.option("--cni-bin-dir", default=install.BIN_DIRS[0], show_default=True, help="The folder of plugins.", metavar="DIR")
@click.option("--cni-conf-dir", default="", help="Write a network of flannel and portmap there, too.", metavar="DIR")
@click.option("--plugin", "names", multiple=True, help="Only this one (can be repeated; default: all).", metavar="NAME")
@click.option("--force", is_flag=True, help="Replace other suites' plugins; they are kept for `ipcni uninstall`.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def command(cni_bin_dir: str, cni_conf_dir: str, names: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Put the plugins into the folder where container runtimes look for them.

    Each file is replaced at once, so pods may start meanwhile. They run with the Python that runs this command.
    """
    for step in install.install(cni_bin_dir, cni_conf_dir, names, force=force, dry_run=dry_run):
        click.echo(f"{'would be ' if dry_run else ''}{step.what}: {step.path}")
