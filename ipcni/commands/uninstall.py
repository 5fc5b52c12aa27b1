"""`ipcni uninstall`: the plugins out of a node's folder, and what was there before back into it."""

import click

from ipcni import install


@click.command(epilog="\b\nExample:\n  ipcni uninstall --cni-bin-dir /opt/cni/bin")
@click.option("--cni-bin-dir", default=install.BIN_DIRS[0], show_default=True, help="The folder of plugins.", metavar="DIR")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def command(cni_bin_dir: str, dry_run: bool) -> None:
    """Remove what `ipcni install` put there, and put back what it had replaced.

    Pods keep their network: the other suite's plugins can delete what ours attached. Network configurations stay.
    """
    for step in install.uninstall(cni_bin_dir, dry_run=dry_run):
        click.echo(f"{'would be ' if dry_run else ''}{step.what}: {step.path}")
