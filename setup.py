"""The configurations go into the wheel, so that an installed package has a quickstart: everything else is in
pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree(Path("configs"), Path(self.build_lib, "learners", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigs})
