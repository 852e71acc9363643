"""A question about a video, with the turns before it → the ids of its prompt, with system message, template, subtitles.

Our form of a user's turn: the video, the subtitles if any, an empty line, the question in its template.

    This video's subtitles are listed below:
    [0:01] Hello there.
    [0:04] Bye.

    Who says goodbye?

The first row is that of Video-MME's own prompt, which models have seen; the times are when each line begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from sfvqa.errors import UsageError
from sfvqa.inference.answer import SubtitleUse
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.prompt import Role, Turn, build_prompt
from sfvqa.inference.prompt_options import MAX_SUBTITLE_TOKENS, PromptOptions
from sfvqa.inference.question import check_question
from sfvqa.video.sampling import format_time
from sfvqa.video.subtitles import SubtitleLine, Subtitles, lines_between, spread_evenly
from sfvqa.wording import plural

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
    trained_length: int | None,
    num_new_tokens: int,
    history: Sequence[tuple[str, str]] = (),
) -> BuiltPrompt:
    """Build it. UsageError for an empty question, and for subtitles without a video.

    history: questions and answers before it. Video and subtitles stand in the first turn of the conversation.
    """
    system = [] if options.system is None else [Turn(Role.SYSTEM, options.system.strip())]
    first, *others = [options.apply_template(check_question(each)) for each in (*(q for q, _ in history), question)]
    num_fast_tokens = 0 if encoded is None else len(encoded.visual_tokens.fast)

    def build(before_question: str) -> list[int]:
        turns = [Turn(Role.USER, before_question + first, shows_video=encoded is not None)]
        for (_, answer), asked in zip(history, others, strict=True):
            turns += [Turn(Role.ASSISTANT, answer), Turn(Role.USER, asked)]
        return build_prompt(tokenizer, [*system, *turns]).expand(num_fast_tokens)

    without = build("")
    if options.subtitles is None:
        return BuiltPrompt(without)
    if encoded is None:
        raise UsageError("There are subtitles and no video.", "Give the video they belong to.")
    budget = subtitle_budget(options, trained_length, len(without) + num_new_tokens)

    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    wanted = lines_between(options.subtitles.lines, *sampled_range(encoded.timestamps_seconds))
    text, num_lines = cut_to(wanted, budget, count_tokens)
    ids = build(f"{text}\n\n") if text else without
    use = SubtitleUse(options.subtitles.source, num_lines, len(wanted) - num_lines, len(ids) - len(without))
    return BuiltPrompt(ids, use, _warnings(options.subtitles, use, budget))


def subtitle_budget(options: PromptOptions, trained_length: int | None, num_other_tokens: int) -> int:
    """The most tokens that subtitles may take beside the others of prompt and answer."""
    if options.subtitle_tokens is not None:
        return options.subtitle_tokens
    room = MAX_SUBTITLE_TOKENS if trained_length is None else trained_length - num_other_tokens
    return max(min(room, MAX_SUBTITLE_TOKENS), 0)


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
