"""A variant's image: a sparse copy of the guest it is of, edited."""

import contextlib
import os
import pathlib
import subprocess
import tempfile

from harness.guest import run

from .image import Image

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build-guest.sh"


def base_image(base, cache):
    """Built if it is not there yet, which takes two minutes."""
    name = run(BUILD, "--name", base).strip()
    image = cache / "guest" / name
    if not image.exists():
        subprocess.run([BUILD, image, base], check=True)
    return image


def make(variant, cache, path):
    run("cp", "--sparse=always", base_image(variant.base, cache), path)
    if variant.make:
        variant.make(Image(path, variant.base))
    return path


@contextlib.contextmanager
def made(variant, cache):
    """In the cache, which has room for guests (/tmp may be memory), and gone afterwards."""
    folder = cache / "guest"
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="broken-", dir=folder) as place:
        yield make(variant, cache, pathlib.Path(place) / "disk.raw")
