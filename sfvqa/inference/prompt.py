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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from transformers import PreTrainedTokenizerBase

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.answer import SubtitleUse
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.question import MAX_SUBTITLE_TOKENS, PromptOptions, check_question
from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.video.sampling import format_time
from sfvqa.video.subtitles import SubtitleLine, Subtitles, lines_between, spread_evenly
from sfvqa.wording import plural

# Qwen2's, for checkpoints that carry none: the reference writes this same string without a template.
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


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


@dataclass(frozen=True)
class Prompt:
    """A tokenised conversation up to the assistant's tag; IMAGE_TOKEN_ID stands once where the video goes, if any."""

    token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.token_ids.count(IMAGE_TOKEN_ID) > 1:
            raise UsageError("A conversation can show only one video.", "Show it in one turn.")

    @property
    def has_video(self) -> bool:
        """Whether a video goes into it."""
        return IMAGE_TOKEN_ID in self.token_ids

    def expand(self, num_fast_tokens: int) -> list[int]:
        """The ids with one IMAGE_TOKEN_ID for every fast token, as the model takes them."""
        if not self.has_video:
            return list(self.token_ids)
        place = self.token_ids.index(IMAGE_TOKEN_ID)
        return [*self.token_ids[:place], *[IMAGE_TOKEN_ID] * num_fast_tokens, *self.token_ids[place + 1 :]]


def question_turn(question: str, *, shows_video: bool) -> Turn:
    """The user's turn that asks `question` and no more; UsageError when it is empty or no valid text."""
    return Turn(Role.USER, check_question(question), shows_video)


def build_prompt(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> Prompt:
    """Tokenise a conversation and the assistant's tag, ready for an answer.

    For Qwen2's template this is the reference's string, `…user\\n<image>\\nQUESTION<|im_end|>…`; it too tokenises the
    pieces around the video separately. Raises CheckpointError when the template refuses, drops or repeats a turn.
    """
    # Contents are rendered as marks and filled in afterwards: the template decides where they go, never what they mean.
    marks = [f"⟦turn {number}⟧" for number in range(len(turns))]
    messages = [{"role": turn.role.value, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    rest = _render(tokenizer, messages)
    token_ids: list[int] = []
    for turn, mark in zip(turns, marks, strict=True):
        if rest.count(mark) != 1:
            raise CheckpointError(
                f"The checkpoint's chat template shows the {turn.role} turn {rest.count(mark)} times, not once.",
                "Check chat_template.jinja or tokenizer_config.json in the checkpoint folder.",
            )
        before, rest = rest.split(mark)
        token_ids += _template_ids(tokenizer, before) + _turn_ids(tokenizer, turn)
    return Prompt(tuple(token_ids + _template_ids(tokenizer, rest)))


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            chat_template=None if tokenizer.chat_template else CHATML_TEMPLATE,
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


def _turn_ids(tokenizer: PreTrainedTokenizerBase, turn: Turn) -> list[int]:
    """The ids of what a turn says; special tokens written in it stay text."""
    text = f"\n{turn.text}" if turn.shows_video else turn.text
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [IMAGE_TOKEN_ID, *ids] if turn.shows_video else ids


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    if not text:
        return []
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    return ids


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
