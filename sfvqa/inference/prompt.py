"""A question about a video, with the turns before it → the ids of its prompt, by the checkpoint's chat template.

What a person types is only ever text here: it is tokenised apart from the template, with special tokens switched off,
so it can neither end its own turn nor stand in for a video. Our form of a user's turn is the video, the subtitles if
any, an empty line, and the question in its template:

    This video's subtitles are listed below:
    [0:01] Hello there.
    [0:04] Bye.

    Who says goodbye?

The first row is that of Video-MME's own prompt, which models have seen; the times are when each line begins.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from transformers import PreTrainedTokenizerBase

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.answer import SubtitleUse
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.question import MAX_SUBTITLE_TOKENS, PromptOptions, check_question
from sfvqa.model.config import IMAGE_TOKEN_ID, SlowFastConfig
from sfvqa.model.families import Family, VideoLayout
from sfvqa.model.families.slowfast import FAMILY as SLOWFAST
from sfvqa.model.visual_tokens import fast_frame_places
from sfvqa.video.sampling import format_time
from sfvqa.video.subtitles import SubtitleLine, Subtitles, lines_between, spread_evenly
from sfvqa.wording import plural

PLACEHOLDER: VideoLayout = (1, "\n")
"""One token for all that a video becomes, as the reference writes it."""


class Role(StrEnum):
    """Who says a turn, in the words chat templates use."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; `shows_video` puts the video in front of its text."""

    role: Role
    text: str
    shows_video: bool = False


def question_turn(question: str, *, shows_video: bool) -> Turn:
    """The user's turn that asks `question` and no more; UsageError when it is empty or no valid text."""
    return Turn(Role.USER, check_question(question), shows_video)


def build_prompt(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    family: Family = SLOWFAST,
    layout: VideoLayout = PLACEHOLDER,
) -> list[int]:
    """Tokenise a conversation and the assistant's tag, ready for an answer; `layout` is what stands for the video.

    For Qwen2's template this is the reference's string, `…user\\n<image>\\nQUESTION<|im_end|>…`. What lies between two
    special tokens is tokenised together, as the families' own processors do. Raises CheckpointError when the template
    refuses, drops or repeats a turn, UsageError for a second video.
    """
    if sum(turn.shows_video for turn in turns) > 1:
        raise UsageError("A conversation can show only one video.", "Show it in one turn.")
    # Contents are rendered as marks and filled in afterwards: the template decides where they go, never what they mean.
    marks = [f"⟦turn {number}⟧" for number in range(len(turns))]
    rest = _render(tokenizer, _messages(turns, marks, family), family)
    writer = _TokenWriter(tokenizer)
    for turn, mark in zip(turns, marks, strict=True):
        if rest.count(mark) != 1:
            raise CheckpointError(
                f"The checkpoint's chat template shows the {turn.role} turn {rest.count(mark)} times, not once.",
                "Check chat_template.jinja or tokenizer_config.json in the checkpoint folder.",
            )
        before, rest = rest.split(mark)
        if turn.shows_video:
            before, behind = (before, "") if family.video_token is None else _around(before, family.video_token)
            writer.template(before)
            for part in layout:
                writer.fast_tokens(part) if isinstance(part, int) else writer.template(part)
            before = behind
        writer.template(before)
        writer.text(turn.text)
    writer.template(rest)
    return writer.finish()


def around_answer(tokenizer: PreTrainedTokenizerBase, family: Family = SLOWFAST) -> tuple[str, list[int]]:
    """What a chat template writes around an answer: white space that it leaves to the model to begin with, and the ids
    behind the answer.

    Most prompts end with all that stands before an answer; "Assistant:" lacks the space, which is then part of what a
    model learns and writes. Raises CheckpointError when the template refuses.
    """
    mark = "⟦answer⟧"
    turns = [Turn(Role.USER, "?"), Turn(Role.ASSISTANT, mark), Turn(Role.USER, "?")]
    messages = _messages(turns, [turn.text for turn in turns], family)
    asked, said = _render(tokenizer, messages[:1], family), _render(tokenizer, messages, family)
    before, _, behind = said.partition(mark)
    lead = before.removeprefix(asked)
    writer = _TokenWriter(tokenizer)
    writer.template(behind)
    return lead if lead.isspace() else "", writer.finish()


class _TokenWriter:
    """Writes ids: of a template's text, in which special tokens count, and of a person's, in which none do."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = {
            token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        longest_first = sorted(map(re.escape, self._special), key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(longest_first) or '$^'})")
        self._ids: list[int] = []
        self._run = ""

    def template(self, text: str) -> None:
        for part in self._pattern.split(text):
            if part in self._special:
                self._end_run()
                self._ids.append(self._special[part])
            else:
                self._run += part

    def text(self, text: str) -> None:
        self._run += text

    def fast_tokens(self, count: int) -> None:
        self._end_run()
        self._ids += [IMAGE_TOKEN_ID] * count

    def finish(self) -> list[int]:
        self._end_run()
        return self._ids

    def _end_run(self) -> None:
        if self._run:
            self._ids += self._tokenizer(self._run, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        self._run = ""


def _messages(turns: Sequence[Turn], marks: Sequence[str], family: Family) -> list[dict[str, Any]]:
    if family.video_token is None:
        return [{"role": turn.role.value, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    video = [{"type": "video"}]
    return [
        {"role": turn.role.value, "content": [*(video * turn.shows_video), {"type": "text", "text": mark}]}
        for turn, mark in zip(turns, marks, strict=True)
    ]


def _around(text: str, video_token: str) -> tuple[str, str]:
    before, found, behind = text.rpartition(video_token)
    if not found:
        raise CheckpointError(
            f"The checkpoint's chat template does not write {video_token} where a turn shows a video.",
            "Check chat_template.json or chat_template.jinja in the checkpoint folder.",
        )
    return before, behind


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], family: Family) -> str:
    has_own = tokenizer.chat_template and not family.template_is_fixed
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            chat_template=None if has_own else family.chat_template,
        )
    except Exception as error:  # a template is a program: it may refuse a role, or be broken in any way
        reason = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        has_system = messages[0]["role"] == Role.SYSTEM
        raise CheckpointError(
            f"The chat template of the checkpoint in {tokenizer.name_or_path} refuses the conversation: {reason}.",
            f"{'Leave out the system message, or check' if has_system else 'Check'} chat_template.jinja or "
            "tokenizer_config.json in that folder.",
        ) from error
    assert isinstance(text, str)
    return text


_HEADER = "This video's subtitles are listed below:"


@dataclass(frozen=True)
class BuiltPrompt:
    """The ids of a prompt, a placeholder for every fast token, and what became of the subtitles."""

    token_ids: list[int]
    subtitles: SubtitleUse | None = None
    warnings: tuple[str, ...] = ()


def prompt_for(
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedVideo | None,
    question: str,
    options: PromptOptions,
    *,
    config: SlowFastConfig,
    num_new_tokens: int,
    history: Sequence[tuple[str, str]] = (),
) -> BuiltPrompt:
    """Build it. UsageError for an empty question, and for subtitles without a video.

    history: questions and answers before it. Video and subtitles stand in the first turn of the conversation.
    """
    system = [] if options.system is None else [Turn(Role.SYSTEM, options.system.strip())]
    first, *others = [options.apply_template(check_question(each)) for each in (*(q for q, _ in history), question)]
    layout: VideoLayout = ()
    if encoded is not None:
        num_fast, times = len(encoded.visual_tokens.fast), encoded.timestamps_seconds
        layout = layout_of(num_fast, times, encoded.video.duration_seconds, config)

    def build(before_question: str) -> list[int]:
        turns = [Turn(Role.USER, before_question + first, shows_video=encoded is not None)]
        for (_, answer), asked in zip(history, others, strict=True):
            turns += [Turn(Role.ASSISTANT, answer), Turn(Role.USER, asked)]
        return build_prompt(tokenizer, [*system, *turns], config.family, layout)

    without = build("")
    if options.subtitles is None:
        return BuiltPrompt(without)
    if encoded is None:
        raise UsageError("There are subtitles and no video.", "Give the video they belong to.")
    budget = subtitle_budget(options, config.training_max_length, len(without) + num_new_tokens)

    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    wanted = lines_between(options.subtitles.lines, *range_of(encoded))
    text, num_lines = cut_to(wanted, budget, count_tokens)
    ids = build(f"{text}\n\n") if text else without
    use = SubtitleUse(options.subtitles.source, num_lines, len(wanted) - num_lines, len(ids) - len(without))
    return BuiltPrompt(ids, use, _warnings(options.subtitles, use, budget))


def layout_of(
    num_fast_tokens: int, timestamps_seconds: Sequence[float], duration_seconds: float, config: SlowFastConfig
) -> VideoLayout:
    """What stands in a prompt for a video whose frames are shown at these times."""
    times = [timestamps_seconds[place] for place in fast_frame_places(len(timestamps_seconds), config)]
    return config.family.lay_out(num_fast_tokens, times, duration_seconds)


def subtitle_budget(options: PromptOptions, trained_length: int | None, num_other_tokens: int) -> int:
    """The most tokens that subtitles may take beside the others of prompt and answer."""
    if options.subtitle_tokens is not None:
        return options.subtitle_tokens
    room = MAX_SUBTITLE_TOKENS if trained_length is None else trained_length - num_other_tokens
    return max(min(room, MAX_SUBTITLE_TOKENS), 0)


def range_of(encoded: EncodedVideo) -> tuple[float, float]:
    """The seconds that a question is about: those that were asked for, else those that the frames stand for.

    Where a picture stands still its frame may have come on screen long before the range.
    """
    (start, end), (first, last) = encoded.asked_range, sampled_range(encoded.timestamps_seconds)
    return first if start is None else start, last if end is None else end


def sampled_range(timestamps_seconds: Sequence[float]) -> tuple[float, float]:
    """The seconds that frames stand for: from first to last, and half the mean time between two on either side.

    >>> sampled_range([1.0, 3.0, 5.0])
    (0.0, 6.0)
    """
    first, last = timestamps_seconds[0], timestamps_seconds[-1]
    half_step = (last - first) / (len(timestamps_seconds) - 1) / 2 if len(timestamps_seconds) > 1 else 0.0
    return first - half_step, last + half_step


def cut_to(lines: Sequence[SubtitleLine], budget: int, count_tokens: Callable[[str], int]) -> tuple[str, int]:
    """The subtitles' part of the prompt in at most `budget` tokens, and how many lines are in it; "" for none.

    Where not all fit, those that are kept are spread evenly over the lines: what is said then covers the same range
    as the frames do, which are spread evenly too; keeping the beginning would leave the end of the video without.
    """
    lines = spread_evenly(lines, max(budget, 0))  # none costs less than one: bounds the work for very long texts
    costs = [count_tokens(f"{_row(line)}\n") for line in lines]
    left = budget - count_tokens(f"{_HEADER}\n")
    total = sum(costs)
    for count in range(min(len(lines), 2 * max(left, 0) * len(lines) // max(total, 1) + 1), 0, -1):
        if sum(spread_evenly(costs, count)) > left:
            continue
        text = "\n".join([_HEADER, *map(_row, spread_evenly(lines, count))])
        if count_tokens(f"{text}\n\n") <= budget:  # pieces may be tokenised otherwise together
            return text, count
    return "", 0


def _row(line: SubtitleLine) -> str:
    return f"[{format_time(max(int(line.start_seconds), 0))}] {line.text}"


def _warnings(subtitles: Subtitles, use: SubtitleUse, budget: int) -> tuple[str, ...]:
    said = list(subtitles.warnings)
    if use.cut:
        said.append(
            f"{use.cut:,} of the {plural(use.lines + use.cut, 'subtitle line')} had to be cut, evenly, "
            f"to stay within {plural(budget, 'token')}; a larger limit for subtitles allows more."
        )
    elif subtitles.lines and not use.lines:
        said.append("No subtitle line falls within the sampled range.")
    return tuple(said)
