"""Build the Rust codec while hatchling builds the `headrace` wheel."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import zipfile
from typing import Any

import maturin
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXTENSION = "headrace/codec/_codec.abi3.so"


class CodecBuildHook(BuildHookInterface[Any]):
    """Runs maturin on `rust_codec/` and puts the extension module beside its Python package."""

    def dependencies(self) -> list[str]:
        # Without cargo on PATH this list names a package that fetches a toolchain.
        return list(maturin.get_requires_for_build_wheel())

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if shutil.which("cargo") is None and os.environ.get("MATURIN_NO_INSTALL_RUST"):
            raise SystemExit(
                "headrace: building the codec needs Rust (cargo) 1.88 or newer, and none is on "
                "PATH. Install it from your distribution or with rustup, or unset "
                "MATURIN_NO_INSTALL_RUST to let the build fetch a toolchain by itself."
            )
        crate = pathlib.Path(self.root, "rust_codec")
        with tempfile.TemporaryDirectory() as out, contextlib.chdir(crate):
            wheel = pathlib.Path(out, maturin.build_wheel(out))
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(EXTENSION, crate)
        build_data["pure_python"] = False
        build_data["tag"] = "-".join(wheel.stem.split("-")[-3:])
