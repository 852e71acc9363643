"""Real photographs and cut-out pictures of things, collected from free packages, to train on what no renderer draws.

Collected once, with a network, on Debian 12; training reads the folder, and needs none.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.training.picture_packages import SOURCES, Source, unpack

SHORTER_SIDE, LONGER_SIDE = 192, 384
"""Of a photograph, in pixels: scaled to the first, cropped around the middle to the second."""

CUT_OUT_SIDE = 128
"""The longer side of a cut-out, in pixels."""

SMALLEST = 96
"""Pixels that a photograph's shorter and a cut-out's longer side need to have, before scaling."""

_OPAQUE_SHARES = (0.05, 0.98)
"""How much of a cut-out's box may be opaque: more is a plain rectangle, less is next to nothing."""

_TRANSPARENT = 0.02
"""How much of a photograph may be transparent: that of rounded corners."""

_PLAIN = 8.0
"""Standard deviation of a photograph's values, of 255, below which it shows nothing."""

_ALIKE = 6.0
"""Mean difference of two thumbnails, of 255, below which they count as one picture."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """What `load_pictures` reads."""

    photographs: tuple[NDArray[np.uint8], ...]  # [h, w, 3]
    cut_outs: tuple[NDArray[np.uint8], ...]  # [h, w, 4]


@dataclass(frozen=True, eq=False)
class Found:
    """A picture, ready to be written, and where it comes from."""

    image: Image.Image
    package: str
    version: str
    path: str
    licence: str


def load_pictures(folder: Path) -> Pictures:
    """The pictures of a folder that `collect` wrote; UsageError when it is missing or incomplete."""
    remedy = f"Make it with `python -m sfvqa.training.pictures --output {folder}`."
    try:
        listed = [Path(str(line["file"])) for line in json.loads((folder / "sources.json").read_text("utf-8"))]
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no collected pictures.", remedy) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder}/sources.json cannot be read.", f"Delete {folder}. {remedy}") from None
    try:
        photographs = tuple(_pixels(folder / file, "RGB") for file in listed if file.parts[0] == "photographs")
        cut_outs = tuple(_pixels(folder / file, "RGBA") for file in listed if file.parts[0] == "cut_outs")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them for a broken file
        raise UsageError(f"{folder} is incomplete: {error}.", f"Delete {folder}. {remedy}") from None
    if not photographs or not cut_outs:
        raise UsageError(f"{folder} is incomplete.", f"Delete {folder}. {remedy}")
    return Pictures(photographs, cut_outs)


def digest(pictures: Pictures) -> str:
    """16 hex digits over the sizes and pixel values of all pictures."""
    whole = hashlib.sha256()
    for picture in (*pictures.photographs, *pictures.cut_outs):
        whole.update(str(picture.shape).encode())
        whole.update(np.ascontiguousarray(picture).tobytes())
    return whole.hexdigest()[:16]


def collect(folder: Path) -> None:
    """Download the packages of `SOURCES` and write their pictures, ordered by package and path.

    `folder` appears whole or not at all; UsageError when it is there already, or when a package cannot be had.
    """
    if folder.exists():
        raise UsageError(f"{folder} is there already.", "Name a folder that does not exist yet.")
    with tempfile.TemporaryDirectory() as work:
        unpacked = unpack(SOURCES, Path(work))
        found = [picture for source in SOURCES for picture in pictures_of(source, *unpacked[source.package])]
    write(folder, without_doubles(found))


def pictures_of(source: Source, root: Path, version: str) -> list[Found]:
    """The pictures of a source in its unpacked package, at most `source.most`, ordered by path.

    Left out are broken and tiny ones, plain ones, and those that look like one before them.
    """
    wanted = re.compile(source.paths)
    files = [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and not file.is_symlink()]
    found = []
    for path in largest_of_each(sorted(filter(wanted.search, files))):
        image = prepared(root / path, cut_out=source.cut_outs)
        if image is not None:
            found.append(Found(image, source.package, version, path, source.licence))
    return spread(without_doubles(found), source.most)


def largest_of_each(paths: Sequence[str]) -> list[str]:
    """Paths without the smaller ones of those that differ in a size alone, as 800x600.png and 1600x1200.png do."""
    largest: dict[str, tuple[int, str]] = {}
    for path in paths:
        size = re.search(r"(\d+)x(\d+)(?=\.\w+$)", path)
        name = re.sub(r"\d+x\d+(?=\.\w+$)", "", path)
        pixels = int(size[1]) * int(size[2]) if size else 0
        largest[name] = max(largest.get(name, (-1, "")), (pixels, path))
    return [path for _, path in largest.values()]


def prepared(file: Path, *, cut_out: bool) -> Image.Image | None:
    """A picture scaled as the folder has it, or None when it is broken, tiny, plain, or not of the asked kind."""
    try:
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return _as_cut_out(upright) if cut_out else _as_photograph(upright)


def spread(found: list[Found], most: int) -> list[Found]:
    """At most `most` of them, evenly spread.

    >>> spread(["a", "b", "c", "d", "e"], 2)
    ['a', 'c']
    """
    count = min(most, len(found))
    return [found[index * len(found) // count] for index in range(count)]


def without_doubles(found: Sequence[Found]) -> list[Found]:
    """The pictures without those that look like one before them, as a wallpaper in another size does."""
    kept: list[Found] = []
    thumbnails = np.empty((len(found), *_thumbnail_shape), np.float32)
    for picture in found:
        thumbnail = _thumbnail(picture.image)
        if len(kept) == 0 or np.abs(thumbnails[: len(kept)] - thumbnail).mean(axis=(1, 2, 3)).min() >= _ALIKE:
            thumbnails[len(kept)] = thumbnail
            kept.append(picture)
    return kept


def write(folder: Path, found: Sequence[Found]) -> None:
    """Write pictures and sources.json into a new folder, which appears when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        part = Path(unfinished) / "pictures"
        (part / "photographs").mkdir(parents=True)
        (part / "cut_outs").mkdir()
        listed = []
        numbers = {"photographs": 0, "cut_outs": 0}
        for picture in sorted(found, key=lambda picture: (picture.package, picture.path)):
            kind, suffix = ("photographs", "jpg") if picture.image.mode == "RGB" else ("cut_outs", "png")
            file = f"{kind}/{numbers[kind]:04d}.{suffix}"
            numbers[kind] += 1
            picture.image.save(part / file, quality=90)
            listed.append(
                {
                    "file": file,
                    "package": picture.package,
                    "version": picture.version,
                    "path": picture.path,
                    "licence": picture.licence,
                }
            )
        (part / "sources.json").write_text(json.dumps(listed, indent=1) + "\n", "utf-8")
        part.rename(folder)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.pictures", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"), help="a folder that does not exist yet")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Collect the pictures, and say what came out."""
    output = parse_arguments(arguments).output
    try:
        collect(output)
        pictures = load_pictures(output)
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        return int(error.exit_code)
    counts = f"{len(pictures.photographs)} photographs, {len(pictures.cut_outs)} cut-outs"
    print(f"{output}: {counts}, digest {digest(pictures)}")
    return 0


def _as_photograph(image: Image.Image) -> Image.Image | None:
    transparent = 1 - np.asarray(image.getchannel("A")).mean() / 255
    if min(image.size) < SMALLEST or transparent > _TRANSPARENT:
        return None
    scale = SHORTER_SIDE / min(image.size)
    width, height = (min(round(side * scale), LONGER_SIDE) for side in image.size)
    photograph = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return photograph if np.asarray(photograph).std(axis=(0, 1)).mean() >= _PLAIN else None


def _as_cut_out(image: Image.Image) -> Image.Image | None:
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    opaque = (np.asarray(image.getchannel("A")) > 127).mean()
    if max(image.size) < SMALLEST or not _OPAQUE_SHARES[0] <= opaque <= _OPAQUE_SHARES[1]:
        return None
    scale = CUT_OUT_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


_thumbnail_shape = (12, 12, 4)


def _thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """A small square of a picture, with alpha on the colours, so that invisible ones do not count."""
    small = image.convert("RGBA").resize(_thumbnail_shape[:2], Image.Resampling.BOX)
    pixels = np.array(small, np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return pixels


def _pixels(file: Path, mode: str) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert(mode))


if __name__ == "__main__":
    sys.exit(main())
