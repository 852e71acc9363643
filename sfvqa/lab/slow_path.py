"""`python -m sfvqa.lab.slow_path`: a video model that was taught few frames learns to see what lies between them.

A small model of a family is made and taught by transformers' own classes and saved as published; all that follows is
what a user does: convert it, run stage 1 on annotated mp4 files, and ask about others.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.comparison.items import render, render_float
from sfvqa.lab.comparison.questions import BenchmarkFamily, BenchmarkQuestion, ask
from sfvqa.lab.comparison.scenes import OBJECT_COLOURS, BenchmarkScene, Flash, Mover, Span, Timeline
from sfvqa.lab.network import learn_tokenizer
from sfvqa.lab.tiny.render import roughen, write_h264
from sfvqa.lab.tiny.scenes import FLASH_COLOURS, Colour, Direction, Pattern, Shape, random_camera, random_shots
from sfvqa.lab.training_loop import TrainingLoop, save_whole
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.model.families import family_of, vision_type_of
from sfvqa.training.annotations import Example
from sfvqa.training.convert import ConversionOptions, add_slow_path
from sfvqa.training.finetune import fine_tune
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import DialogueWriter, collate
from sfvqa.video.readers import ReadOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from sfvqa.model.families import Family

FAST_FRAMES, SLOW_FRAMES = 4, 32
TIMELINE = Timeline(SLOW_FRAMES - 1.0, SLOW_FRAMES)  # a moment a second: all are sampled, by both families
SHOWN = range(0, SLOW_FRAMES, SLOW_FRAMES // FAST_FRAMES)
"""The moments that fast frames show."""
BETWEEN = [moment for moment in range(SLOW_FRAMES) if moment not in SHOWN]
OTHERS = (BenchmarkFamily.COLOUR, BenchmarkFamily.COUNT, BenchmarkFamily.BACKGROUND)
"""What any frame but that of the flash answers."""
IMAGE_SIZE, PATCH_SIZE, TOKENS_PER_FRAME = 64, 8, 16
QUALITIES = (14, 26)  # of x264
TEACHING, TRAINING, TESTING = range(3)  # whose scenes


@dataclass(frozen=True)
class Settings:
    """How much is trained; `still_steps` of the base's `base_steps` are on single frames."""

    family: str
    still_steps: int = 400
    base_steps: int = 700
    scenes_per_step: int = 24
    base_rate: float = 4e-3
    hybrid_layers: tuple[int, ...] = (0, 2)
    num_videos: int = 400
    num_steps: int = 400
    rows_per_step: int = 16
    learning_rate: float = 1e-2
    num_tests: int = 100


# --- what is shown and asked ---


def draw_scene(rng: np.random.Generator, flash_moments: Sequence[int]) -> BenchmarkScene:
    """One to three resting shapes of one colour, a quarter of the frame each, and a flash at one of the moments."""
    count = int(rng.integers(1, 4))
    colour = Colour(rng.choice(np.array(OBJECT_COLOURS)))
    shapes, quarters = (rng.permutation(np.array(choices))[:count] for choices in (list(Shape), range(4)))
    moment = int(rng.choice(np.array(flash_moments)))
    seconds = TIMELINE.duration_seconds
    return BenchmarkScene(
        TIMELINE,
        tuple(
            _resting(rng, Shape(shape), colour, int(quarter)) for shape, quarter in zip(shapes, quarters, strict=True)
        ),
        Pattern(rng.choice(np.array(list(Pattern)))),
        random_shots(rng, seconds),
        random_camera(rng, seconds),
        flash=Flash(Colour(rng.choice(np.array(FLASH_COLOURS))), Span(moment - 0.5, moment + 0.5)),
    )


def _resting(rng: np.random.Generator, shape: Shape, colour: Colour, quarter: int) -> Mover:
    x, y = (0.25 + 0.5 * half + rng.uniform(-0.04, 0.04) for half in divmod(quarter, 2))
    always = Span(0.0, TIMELINE.duration_seconds)
    return Mover(shape, colour, float(rng.uniform(0.13, 0.17)), Direction.STILL, (x, y), (x, y), 0.0, always)


def ask_all(
    rng: np.random.Generator, scene: BenchmarkScene, families: Sequence[BenchmarkFamily]
) -> list[BenchmarkQuestion]:
    """A question of each family, in random order."""
    asked = [ask(rng, scene, family) for family in families]
    return [found for number in rng.permutation(len(asked)) if (found := asked[number]) is not None]


# --- the base ---

_SPECIAL = {
    "llava_onevision": ("<image>", "<video>"),
    "smolvlm": ("<image>", "<video>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>"),
}


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """One that knows the questions, and the words that the family's prompts are made of."""
    tokenizer = learn_tokenizer(_corpus(family), vocab_size=512)
    tokens = [AddedToken(token, special=True) for token in _SPECIAL[family.name]]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    if family.name == "smolvlm":
        tokenizer.eos_token = "<end_of_utterance>"
    # As published, LLaVA's shows a past answer with a space that it does not ask with: a row could hold one alone.
    assert family.chat_template is not None
    tokenizer.chat_template = family.chat_template.replace("message['role'] + ' '", "message['role']")
    return tokenizer


def _corpus(family: Family) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for _ in range(300):
        yield "system user assistant User: Assistant:"
        layout = family.lay_out(FAST_FRAMES * TOKENS_PER_FRAME, tuple(SHOWN), SLOW_FRAMES)
        yield " ".join(part for part in layout if isinstance(part, str))
        for question in ask_all(rng, draw_scene(rng, SHOWN), (*OTHERS, BenchmarkFamily.FLASH)):
            yield f"{question.text} {question.answer}"
            yield question.answer


def make_base(family: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A small model of the family, fresh, of transformers' own class."""
    vision: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3}
    vision |= {"num_attention_heads": 4, "patch_size": PATCH_SIZE, "image_size": IMAGE_SIZE}
    text: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.04, "tie_word_embeddings": True}
    text |= {"max_position_embeddings": 1024, "vocab_size": len(tokenizer), "bos_token_id": None}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    image, video = (int(tokenizer.get_vocab()[token]) for token in ("<image>", "<video>"))
    torch.manual_seed(0)
    if family == "llava_onevision":
        return LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=vision | {"model_type": "siglip_vision_model", "vision_use_head": False},
                text_config=text | {"model_type": "qwen2"},
                image_token_index=image,
                video_token_index=video,
                tie_word_embeddings=True,
            )
        )
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            vision_config=vision,
            text_config=text | {"model_type": "llama"},
            scale_factor=2,
            image_token_id=image,
            tie_word_embeddings=True,
        )
    )


def teach_base(settings: Settings, folder: Path) -> Path:
    """Teach a base from single frames, then from as many as stand in a prompt, and save it as published."""
    published = folder / "base"
    if (published / "model.safetensors").exists():
        return published
    family = family_of(vision_type_of(settings.family))
    assert family is not None
    tokenizer = make_tokenizer(family)
    model = make_base(settings.family, tokenizer)
    lessons = _Lessons(settings, family, tokenizer)
    loop = TrainingLoop(
        {"model": model},
        folder / "base.pt",
        num_steps=settings.base_steps,
        rate=settings.base_rate,
        outside=model.get_input_embeddings().parameters(),
    )

    def take_step(step: int) -> dict[str, float]:
        loss = model(**lessons.batch(step)).loss
        loss.backward()
        return {"loss": loss.item()}

    loop.run(take_step)
    tokenizer.save_pretrained(published)
    processor = {"size": {"longest_edge": IMAGE_SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    save_whole(json.dumps(processor), published / "preprocessor_config.json")
    model.save_pretrained(published)
    return published


class _Lessons:
    """Batches as transformers' classes take them; those of a step depend on its number alone."""

    def __init__(self, settings: Settings, family: Family, tokenizer: PreTrainedTokenizerFast) -> None:
        self._settings, self._family = settings, family
        self._writer = DialogueWriter(tokenizer, frozenset({int(tokenizer.eos_token_id)}), family)
        is_llava = settings.family == "llava_onevision"
        self._pixels_name = "pixel_values_videos" if is_llava else "pixel_values"
        self._visual_token = int(tokenizer.get_vocab()["<video>" if is_llava else "<image>"])

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """All questions about every scene, or those that its single frame answers."""
        rng = np.random.default_rng([TEACHING, step])
        is_still = step < self._settings.still_steps
        items = [self._item(rng, is_still=is_still) for _ in range(self._settings.scenes_per_step)]
        batch = collate(items)
        ids, pixels = batch["input_ids"], torch.stack(batch.pop("pixel_values"))
        return {
            **batch,
            "input_ids": ids.masked_fill(ids == IMAGE_TOKEN_ID, self._visual_token),
            self._pixels_name: pixels,
        }

    def _item(self, rng: np.random.Generator, *, is_still: bool) -> dict[str, Any]:
        scene = draw_scene(rng, SHOWN)
        times, families = np.array(SHOWN, dtype=float), [*OTHERS, BenchmarkFamily.FLASH]
        if is_still:
            times = rng.choice(times, size=1)
            is_lit = scene.flash is not None and scene.flash.span.holds(times).any()
            families.remove(BenchmarkFamily.BACKGROUND if is_lit else BenchmarkFamily.FLASH)
        frames = roughen(render_float(scene, IMAGE_SIZE, times), rng)
        pixels = torch.from_numpy(frames * 2 - 1).permute(0, 3, 1, 2)
        num_fast = len(times) * TOKENS_PER_FRAME + self._family.num_behind_video
        turns = tuple((question.text, question.answer) for question in ask_all(rng, scene, families))
        layout = self._family.lay_out(num_fast, tuple(times), SLOW_FRAMES)
        (row,) = self._writer.rows(Example("", Path(), turns), layout)
        return {"input_ids": row.ids, "labels": row.labels, "pixel_values": pixels}


# --- the slow path ---


@dataclass(frozen=True)
class FlashVideo:
    """A file whose flash no fast frame shows, and what is asked about it, the flash first."""

    path: Path
    questions: tuple[BenchmarkQuestion, ...]


def write_videos(folder: Path, part: int, count: int) -> list[FlashVideo]:
    """The first `count` videos of TRAINING or TESTING; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = []
    for number in range(count):
        rng = np.random.default_rng([part, number])
        scene = draw_scene(rng, BETWEEN)
        flash = ask(rng, scene, BenchmarkFamily.FLASH)
        assert flash is not None
        video = FlashVideo(folder / f"{number}.mp4", (flash, *ask_all(rng, scene, OTHERS)))
        if not video.path.exists():
            unfinished = video.path.with_suffix(".unfinished")
            write_h264(render(scene, IMAGE_SIZE), str(unfinished), fps=1, quality=int(rng.integers(*QUALITIES)))
            unfinished.replace(video.path)
        videos.append(video)
    return videos


def learn_slow_path(settings: Settings, base: Path, folder: Path) -> tuple[Path, Path]:
    """Convert the base and run stage 1, on questions about flashes and as many others; return both checkpoints."""
    layers = "-".join(map(str, settings.hybrid_layers))
    converted, run = folder / f"layers-{layers}", folder / f"run-{layers}"
    if not converted.exists():
        options = ConversionOptions(hybrid_layers=settings.hybrid_layers)
        add_slow_path(base, converted, num_fast_frames=FAST_FRAMES, num_slow_frames=SLOW_FRAMES, options=options)
    trained = run / "checkpoint"
    if (trained / "model.safetensors").exists():
        return converted, trained
    annotations = annotate(write_videos(folder / "training", TRAINING, settings.num_videos))
    learning = FineTuning(
        stage=Stage.BRIDGE,
        num_steps=settings.num_steps,
        batch_size=settings.rows_per_step,
        learning_rate=settings.learning_rate,
        log_every=20,
        save_every=50,
        device="cpu",
    )
    resume = any(run.glob("checkpoint-*"))
    return converted, fine_tune(converted, annotations, annotations.parent, run, learning, resume=resume)


def annotate(videos: Sequence[FlashVideo]) -> Path:
    """Write annotations beside the videos: of each the flash, and one of the other questions, with their answers."""
    entries = []
    for number, video in enumerate(videos):
        flash, *others = video.questions
        for question in (flash, others[number % len(others)]):
            said = [{"from": "human", "value": question.text}, {"from": "gpt", "value": question.answer}]
            entries.append({"id": f"{number} {question.family}", "video": video.path.name, "conversations": said})
    path = videos[0].path.parent / "annotations.json"
    save_whole(json.dumps(entries), path)
    return path


def are_right(
    model: Path, videos: Sequence[FlashVideo], *, adapter: Path | None = None, quantization: str = "auto"
) -> list[list[bool]]:
    """Which questions about each video `ask` answers rightly."""
    qa = VideoQA.load(model, device="cpu", adapter=adapter, quantization=quantization)
    here = ReadOptions(isolated=False)
    found = []
    for video in videos:
        encoded = qa.encode(video.path, reading=here)
        asked = [(encoded, question.text) for question in video.questions]
        answers = qa.answer_batch(asked, GenerationOptions(max_new_tokens=8))
        found.append([a.text == q.answer for a, q in zip(answers, video.questions, strict=True)])
    return found


@dataclass(frozen=True)
class Outcome:
    """Right answers about `num_videos` fresh videos, before stage 1 and after it.

    Of `num_others` other questions the base answers `num_known` rightly, and `num_kept` of these still are. Of
    `num_tensors` tensors `num_learned` changed, all of them of slow attention but those of `changed_elsewhere`.
    """

    num_videos: int
    flash_before: int
    flash_after: int
    num_others: int
    num_known: int
    num_kept: int
    num_tensors: int
    num_learned: int
    changed_elsewhere: list[str]


def measure(settings: Settings, folder: Path) -> Outcome:
    """Make the base, give it a slow path, and ask both about fresh videos; goes on where it was stopped."""
    converted, trained = learn_slow_path(settings, teach_base(settings, folder), folder)
    videos = write_videos(folder / "testing", TESTING, settings.num_tests)
    before, after = (np.array(are_right(model, videos)) for model in (converted, trained))
    old, new = (SlowFastForConditionalGeneration.from_pretrained(model).state_dict() for model in (converted, trained))
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    known = before[:, 1:]
    return Outcome(
        num_videos=len(videos),
        flash_before=int(before[:, 0].sum()),
        flash_after=int(after[:, 0].sum()),
        num_others=known.size,
        num_known=int(known.sum()),
        num_kept=int((known & after[:, 1:]).sum()),
        num_tensors=len(old),
        num_learned=len(changed),
        changed_elsewhere=[name for name in changed if ".slow_attention." not in name],
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("slow_path", __doc__)
    parser.add_argument("--family", choices=_SPECIAL, required=True, help="whose classes the model is made of")
    parser.add_argument("--hybrid-layers", help="which of the four layers look at slow tokens, such as 0,1,2,3")
    parser.add_argument("--run", type=Path, help="where it is kept, to go on there (default: runs/slow-path-FAMILY)")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure one family and print its row of the table."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    settings = Settings(options.family)
    if options.hybrid_layers:
        settings = replace(settings, hybrid_layers=tuple(map(int, options.hybrid_layers.split(","))))
    outcome = measure(settings, options.run or Path(f"runs/slow-path-{options.family}"))
    write_figures(options.json, settings=vars(settings), outcome=vars(outcome))
    head = ["family", "hybrid layers", "flash, before", "flash, after", "other questions, before"]
    head += ["of these right after", "tensors that changed", "outside slow attention"]
    row = [
        options.family,
        ", ".join(map(str, settings.hybrid_layers)),
        share(outcome.flash_before, outcome.num_videos),
    ]
    row += [share(outcome.flash_after, outcome.num_videos), share(outcome.num_known, outcome.num_others)]
    row += [share(outcome.num_kept, outcome.num_known), share(outcome.num_learned, outcome.num_tensors)]
    print(markdown_table(head, [[*row, str(len(outcome.changed_elsewhere))]], num_texts=2))


def share(count: int, total: int) -> str:
    """`98 of 100`."""
    return f"{count} of {total}"


if __name__ == "__main__":
    main()
