"""Makes the program that stands in each plugin's place (ipcni/native/client.c) part of the package, where there is a compiler."""

import pathlib
import subprocess

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class WithClient(build_py):
    """build_py, and then cc: static if the C library allows it. Without a compiler `ipcni install` looks for one."""

    def run(self) -> None:
        super().run()
        folder = pathlib.Path("ipcni" if self.editable_mode else f"{self.build_lib}/ipcni") / "native"
        for options in (["-static"], []):
            command = ["cc", "-O2", "-s", *options, "-o", str(folder / "client"), str(folder / "client.c")]
            try:
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    return
            except FileNotFoundError:
                return


class ForThisMachine(bdist_wheel):
    """A wheel for any Python 3, and for one kind of machine: the program's."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_py": WithClient, "bdist_wheel": ForThisMachine})
