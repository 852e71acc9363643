"""Conversation turns → token ids, through the checkpoint's own chat template. Knows nothing of pixels or devices.

What a person types is only ever text here: it is tokenised apart from the template, with special tokens switched off,
so it can neither end its own turn nor stand in for a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from transformers import PreTrainedTokenizerBase

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.question import check_question
from sfvqa.model.config import IMAGE_TOKEN_ID

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
