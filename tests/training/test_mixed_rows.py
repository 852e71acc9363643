"""Videos, pictures and text alone in one batch: each row is learned from as if it were the only one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sfvqa.inference import VideoQA
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.training.annotations import check_videos, read_annotations
from sfvqa.training.convert import add_slow_path
from sfvqa.training.frozen_tower import Looking
from sfvqa.training.rows import IGNORED, DialogueWriter, VideoDataset, collate
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from tests.inference.conftest import write_video
from tests.model.families.published import FAMILIES, save_whole

HERE = ReadOptions(isolated=False, num_threads=1)
NUM_FRAMES = 4
QUESTION = "Which colour?"


@pytest.fixture(params=["slowfast", *FAMILIES], scope="module")
def qa(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoQA:
    """A model of each kind that looks at its slow tokens."""
    if request.param == "slowfast":
        return VideoQA.load("tiny", device="cpu")
    folder = tmp_path_factory.mktemp(request.param)
    save_whole(request.param, folder / "base")
    add_slow_path(folder / "base", folder / "ours", num_fast_frames=2, num_slow_frames=NUM_FRAMES)
    opened = VideoQA.load(folder / "ours", device="cpu")
    for module in opened.checkpoint.model.modules():
        if isinstance(module, GatedSlowAttention):
            torch.nn.init.constant_(module.warm_up_gate, 1.0)
    return opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of every kind, in JSON lines: two videos, of which one has fewer frames than are taken, and two pictures."""
    folder = tmp_path_factory.mktemp("mixed")
    write_video(folder / "long.mp4", num_frames=20, colour=(200, 30, 60))
    write_video(folder / "short.mp4", num_frames=2, colour=(30, 200, 60))
    for name, size in (("wide.jpg", (90, 40)), ("high.png", (40, 70))):
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    said = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Red."}]
    more = [*said, {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "Nothing, for long."}]
    rows: list[dict[str, Any]] = [
        {"video": "long.mp4", "messages": more, "system": "Answer in a word."},
        {"messages": said},
        {"image": "wide.jpg", "messages": said},
        {"videos": ["short.mp4"], "messages": said},
        {"messages": more, "system": "Be kind."},
        {"images": ["high.png"], "messages": more},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def dataset_of(qa: VideoQA, folder: Path) -> VideoDataset:
    checkpoint, config = qa.checkpoint, qa.checkpoint.model.config
    looking = Looking(SamplingOptions(NUM_FRAMES), qa.default_crop, HERE)
    examples = read_annotations(folder / "rows.jsonl", folder)
    examples = check_videos(examples, looking.sampling, looking.reading, skip_unreadable=False)
    writer = DialogueWriter(checkpoint.tokenizer, checkpoint.end_token_ids, config.family)
    return VideoDataset(examples, writer, config, looking)


def row_losses(qa: VideoQA, items: list[dict[str, Any]]) -> Tensor:
    """The summed loss of each row of a batch."""
    batch = collate(items)
    labels = batch.pop("labels")
    logits = qa.checkpoint.model(**batch).logits
    losses = functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:], ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1)


def test_a_row_has_the_loss_in_a_batch_that_it_has_alone(qa: VideoQA, folder: Path) -> None:
    dataset = dataset_of(qa, folder)
    items = [dataset[number] for number in range(len(dataset))]
    kinds = {None if item["pixel_values"] is None else len(item["pixel_values"]) for item in items}
    assert kinds == {None, 1, 2, NUM_FRAMES}
    with torch.inference_mode():
        alone = torch.cat([row_losses(qa, [item]) for item in items])
        together, reversed_ = row_losses(qa, items), row_losses(qa, items[::-1]).flip(0)
    assert alone.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reversed_, alone, rtol=1e-5, atol=1e-5)


def test_a_text_row_learns_nothing_of_the_video_beside_it(qa: VideoQA, folder: Path) -> None:
    """Nor does a picture: with other pixels beside them, their losses stay, to the last bit; the video's does not."""
    dataset = dataset_of(qa, folder)
    video, text, picture = (dataset[number] for number in _first_of_each(dataset))
    other = video | {"pixel_values": video["pixel_values"].flip(0) + 1}
    with torch.inference_mode():
        one, two = (row_losses(qa, [first, text, picture]) for first in (video, other))
    assert torch.equal(one[1:], two[1:])
    assert one[0] != two[0]


def _first_of_each(dataset: VideoDataset) -> list[int]:
    kinds = [dataset[number]["pixel_values"] for number in range(len(dataset))]
    counts = [0 if pixels is None else len(pixels) for pixels in kinds]
    return [counts.index(count) for count in (NUM_FRAMES, 0, 1)]


def test_a_picture_stands_in_its_row_as_ask_shows_it(qa: VideoQA, folder: Path) -> None:
    dataset = dataset_of(qa, folder)
    item = dataset[_first_of_each(dataset)[2]]
    seen = qa.encode(folder / "wide.jpg", SamplingOptions(NUM_FRAMES), reading=HERE)
    checkpoint = qa.checkpoint
    asked = prompt_for(
        checkpoint.tokenizer, seen, QUESTION, PromptOptions(), config=checkpoint.model.config, num_new_tokens=8
    ).token_ids
    assert list(item["input_ids"][: len(asked)]) == asked
    with torch.inference_mode():
        tokens = checkpoint.model.encode_video(item["pixel_values"])
    torch.testing.assert_close(tokens.slow, seen.visual_tokens.slow)
    torch.testing.assert_close(tokens.fast, seen.visual_tokens.fast)
