"""Compiles the loops of the Judgment Protocol (`circuit_script/judgment/*.pyx`) while the package is built.

Where there is no C compiler the package is built without them: numpy does the same, to the last bit, and takes longer.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/circuit_script/judgment")
PACKAGE = ".".join(FOLDER.parts[1:])
# A product and a sum are rounded apart on every processor, or another would judge by another last bit.
FLAGS = [] if sys.platform == "win32" else ["-O3", "-g0", "-ffp-contract=off"]


class Loops(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own hooks say it like this
    """An editable install gets the compiled module beside its source, a wheel gets it inside."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._made = Path(mkdtemp(prefix="circuit-script-"))
        if self.target_name != "wheel":
            return
        try:
            libraries = _compiled(Path(self.root, FOLDER), self._made)
        except BaseException as error:  # setuptools leaves by SystemExit, compilers in many other ways
            if isinstance(error, KeyboardInterrupt):
                raise
            self.app.display_warning(f"{PACKAGE}: loops are not compiled, judging will take longer: {error}")
            return
        for library in libraries:
            if version == "editable":
                beside = Path(self.root, FOLDER, library.name)
                shutil.copy2(library, beside.with_suffix(".new"))
                beside.with_suffix(".new").replace(beside)  # processes that run keep theirs
            else:
                build_data["force_include"][str(library)] = str(Path(*FOLDER.parts[1:], library.name))
                build_data["pure_python"] = False
                build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._made, ignore_errors=True)


def _compiled(sources: Path, folder: Path) -> list[Path]:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    extensions = []
    for each in sorted(sources.glob("*.pyx")):
        text = each.read_bytes()
        source = folder / each.name
        source.write_bytes(text + f'\nMADE_OF = "{sha256(text).hexdigest()}"\n'.encode())
        extensions.append(Extension(f"{PACKAGE}.{each.stem}", [str(source)], extra_compile_args=FLAGS))
    modules = cythonize(extensions, build_dir=str(folder), quiet=True, compiler_directives={"language_level": 3})
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
    command.parallel = len(extensions)
    command.ensure_finalized()
    command.run()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [folder / "lib" / Path(*each.name.split(".")).with_suffix(suffix) for each in extensions]
