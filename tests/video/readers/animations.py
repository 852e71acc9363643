"""Writes random GIF and APNG files byte by byte, and composes their frames as the two specifications say."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 24, 16
KEEP, CLEAR, RESTORE = 1, 2, 3  # what becomes of a frame when the next one is drawn, by GIF's numbers
_COLOURS = 128
_CLEAR_CODE, _END_CODE = 128, 129


@dataclass(frozen=True)
class Patch:
    """One frame: RGBA pixels [h, w, 4] drawn at (x, y), shown for some hundredths of a second."""

    pixels: Pixels
    x: int
    y: int
    hundredths: int
    disposal: int
    blend: bool


def random_patches(seed: int, count: int = 6, *, half_transparent: bool = False) -> list[Patch]:
    """Frames of random size and place, the first one full, all of colours from one small palette."""
    rng = np.random.default_rng(seed)
    patches = []
    for number in range(count):
        x, y = (0, 0) if number == 0 else (int(rng.integers(WIDTH - 2)), int(rng.integers(HEIGHT - 2)))
        width = WIDTH if number == 0 else int(rng.integers(1, WIDTH - x + 1))
        height = HEIGHT if number == 0 else int(rng.integers(1, HEIGHT - y + 1))
        pixels = palette(seed)[rng.integers(1, _COLOURS, (height, width))]
        alpha = rng.integers(0, 256, (height, width)) if half_transparent else rng.choice((0, 255), (height, width))
        # No transparency in some; a GIF then clears to its background colour, here black.
        alpha = alpha if rng.random() < 0.6 else np.full_like(alpha, 255)
        patches.append(
            Patch(
                pixels=np.dstack([pixels, alpha]).astype(np.uint8),
                x=x,
                y=y,
                hundredths=int(rng.integers(0, 12)),
                disposal=int(rng.integers(0, 4)),
                blend=bool(rng.integers(2)),
            )
        )
    return patches


def palette(seed: int) -> Pixels:
    """128 colours that differ in their first number, which a GIF's pixels are looked up by; colour 0 is black."""
    colours = np.random.default_rng(seed + 1000).integers(0, 256, (_COLOURS, 3)).astype(np.uint8)
    colours[:, 0] = 2 * np.arange(_COLOURS)
    colours[0] = 0
    return colours


def composed(patches: Sequence[Patch], *, always_blend: bool) -> list[NDArray[np.float64]]:
    """What is shown over black, [H, W, 3] of 0 to 255; a GIF blends always, an APNG frame may replace what was."""
    canvas = np.zeros((HEIGHT, WIDTH, 4))
    shown = []
    for number, patch in enumerate(patches):
        before = canvas.copy()
        height, width = patch.pixels.shape[:2]
        part = canvas[patch.y : patch.y + height, patch.x : patch.x + width]
        new = patch.pixels / 255
        if patch.blend or always_blend:
            alpha = new[..., 3:] + part[..., 3:] * (1 - new[..., 3:])
            colour = new[..., :3] * new[..., 3:] + part[..., :3] * part[..., 3:] * (1 - new[..., 3:])
            new = np.dstack([colour / np.maximum(alpha, 1e-9), alpha])
        part[:] = new
        shown.append(canvas[..., :3] * canvas[..., 3:] * 255)
        if patch.disposal == CLEAR or (patch.disposal == RESTORE and number == 0):
            part[:] = 0
        elif patch.disposal == RESTORE:
            canvas = before
    return shown


def gif_bytes(patches: Sequence[Patch], seed: int) -> bytes:
    """A GIF89a with one palette and codes of 8 bits, as no one compresses it."""
    content = b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0xF6, 0, 0) + palette(seed).tobytes()
    for patch in patches:
        is_transparent = bool((patch.pixels[..., 3] == 0).any())
        flags = patch.disposal << 2 | is_transparent
        content += b"\x21\xf9\x04" + struct.pack("<BHB", flags, patch.hundredths, 0) + b"\0"
        height, width = patch.pixels.shape[:2]
        content += b"," + struct.pack("<HHHHB", patch.x, patch.y, width, height, 0)
        indices = np.where(patch.pixels[..., 3] == 0, 0, patch.pixels[..., 0] // 2).astype(np.uint8).tobytes()
        codes = b"".join(bytes([_CLEAR_CODE]) + indices[at : at + 100] for at in range(0, len(indices), 100))
        codes += bytes([_END_CODE])
        blocks = (codes[at : at + 255] for at in range(0, len(codes), 255))
        content += b"\x07" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return content + b";"


def apng_bytes(patches: Sequence[Patch], poster: Pixels | None = None) -> bytes:
    """An APNG; `poster` is the picture for programs that know no APNG, and no frame."""
    content = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 6, 0, 0, 0))
    content += _chunk(b"acTL", struct.pack(">II", len(patches), 0))
    if poster is not None:
        content += _chunk(b"IDAT", _deflated(poster))
    sequence = 0
    for number, patch in enumerate(patches):
        height, width = patch.pixels.shape[:2]
        disposal = {CLEAR: 1, RESTORE: 2}.get(patch.disposal, 0)
        place = struct.pack(">IIIII", sequence, width, height, patch.x, patch.y)
        content += _chunk(b"fcTL", place + struct.pack(">HHBB", patch.hundredths, 100, disposal, patch.blend))
        sequence += 1
        if number == 0 and poster is None:
            content += _chunk(b"IDAT", _deflated(patch.pixels))
        else:
            content += _chunk(b"fdAT", struct.pack(">I", sequence) + _deflated(patch.pixels))
            sequence += 1
    return content + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def _deflated(pixels: Pixels) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
