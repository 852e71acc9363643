"""Videos that are broken, and whole ones of the kinds that were once called so, for batches that must end."""

import random
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from tests.video import videos
from tests.video.readers.test_alpha import CLEAR, with_alpha
from tests.video.readers.test_decoder_state import PARTS, join_flv, write_palettes
from tests.video.readers.test_encrypted import KEY, in_fragments
from tests.video.readers.test_length import write_with_sound
from tests.video.readers.test_shapes import write_changing
from tests.video.readers.test_tracks import DEFAULT, Track, write_tracks
from tests.video.readers.test_transport_stream import lose, segments
from tests.video.stored import Stored, write_frames


def broken_files(folder: Path) -> list[Path]:
    """Of three containers: whole, cut, with bytes that flipped, with a tenth of other bytes; and none at all."""
    recipes = {
        "whole.mp4": videos.Recipe(videos.constant_rate(75), group=15, container_options={"movflags": "faststart"}),
        "whole.webm": videos.Recipe(videos.constant_rate(75), group=15, codec="libvpx-vp9"),
        "whole.avi": videos.Recipe(videos.constant_rate(75), group=15, codec="mpeg4"),
        "whole.ts": videos.Recipe(videos.constant_rate(75), group=15),
    }
    for name, recipe in recipes.items():
        path = videos.write_video(folder / name, recipe)
        content = path.read_bytes()
        (folder / f"cut {name}").write_bytes(content[: len(content) * 6 // 10])
        other = bytearray(content)
        for place in range(len(other) // 2, len(other) * 6 // 10):
            other[place] ^= 0x5A
        (folder / f"other {name}").write_bytes(other)
        for seed in range(3):
            rng, flipped = random.Random(seed), bytearray(content)
            for _ in range(100):
                flipped[rng.randrange(len(flipped) // 10, len(flipped))] ^= rng.randrange(1, 256)
            (folder / f"flipped {seed} {name}").write_bytes(flipped)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("Dear reader, " * 100)
    (folder / "noise.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + random.Random(0).randbytes(50_000))
    return sorted(folder.iterdir())


def unusual_files(folder: Path) -> list[Path]:
    """State said once, several tracks, longer sound, pictures that stand, joined segments, changing shapes, DRM."""
    before = set(folder.iterdir())
    parts = folder.parent / "parts"
    parts.mkdir()
    write_palettes(folder / "palette.avi")
    join_flv([videos.write_video(parts / f"{n}.flv", part) for n, part in enumerate(PARTS)], folder / "headers.flv")
    write_tracks(folder / "tracks.mp4", [Track(1), Track(2, marks=DEFAULT)])
    for name in ("sound.webm", "sound.wmv"):
        write_with_sound(folder / name)
    write_frames(folder / "alpha.avi", Stored("rawvideo", "bgra"), with_alpha(CLEAR, "bgra"))
    whole = videos.write_video(parts / "whole.mp4", videos.Recipe(videos.constant_rate(60), group=12))
    (folder / "joined.ts").write_bytes(b"".join(segments(whole, parts)))
    (folder / "joined, one lost.ts").write_bytes((folder / "joined.ts").read_bytes())
    lose(folder / "joined, one lost.ts", 40)
    write_changing(parts / "shapes.ts", "mpeg2video", [Fraction(1), Fraction(4, 3)]).rename(folder / "shapes.ts")
    (folder / "locked.mp4").write_bytes(in_fragments(whole, parts / "locked.mp4", KEY))
    still = av.VideoFrame.from_ndarray(videos.numbered_picture(3), format="rgb24").reformat(format="yuv420p")
    write_frames(folder / "one frame.mp4", Stored("libx264", "yuv420p"), [still])
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.fromarray(videos.numbered_picture(number)).save(pictures / f"{number}.png")
    (pictures / "3.png").write_bytes(b"no picture")
    return sorted(set(folder.iterdir()) - before)
