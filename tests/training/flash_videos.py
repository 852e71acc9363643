"""Videos with one coloured frame and what to ask about it: small enough to learn in a minute."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
QUESTION = "Which colour flashes?"
NUM_FRAMES = 4  # of the model; a video has twice as many, so that a flash of two frames is seen once


def answer_of(colour: str) -> str:
    return f"{colour}."


def write_flash_video(path: Path, colour: str, rng: np.random.Generator, num_lit: int = 2) -> None:
    """A grey square that drifts over a darker ground; in `num_lit` frames the whole picture has a colour."""
    flash = 2 * int(rng.integers(1, NUM_FRAMES - 1))
    left, top = rng.integers(0, 40, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "ultrafast"}
        stream.codec_context.thread_count = 1
        for number in range(2 * NUM_FRAMES):
            picture = np.full((64, 64, 3), 60, np.uint8)
            if flash <= number < flash + num_lit:
                picture[:] = COLOURS[colour]
            picture[top : top + 16, (left + number) % 48 : (left + number) % 48 + 16] = 150
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_flash_videos(folder: Path, count: int, seed: int, *, num_lit: int = 2) -> tuple[Path, list[dict[str, Any]]]:
    """So many of them, with an annotation file beside them; its entries."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    entries = []
    for number in range(count):
        colour = list(COLOURS)[number % len(COLOURS)]
        write_flash_video(folder / f"{number}.mp4", colour, rng, num_lit)
        conversation = [
            {"from": "human", "value": f"<image>\n{QUESTION}"},
            {"from": "gpt", "value": answer_of(colour)},
        ]
        entries.append({"id": f"{seed}-{number}", "video": f"{number}.mp4", "conversations": conversation})
    path = folder / "annotations.json"
    path.write_text(json.dumps(entries))
    return path, entries
