"""What a chat says of its turns, its frames and its context, in words. Prints nothing."""

from typing import TYPE_CHECKING

from sfvqa.cli.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.inference.answer import Answer
    from sfvqa.inference.chat import Chat, ContextUse


def describe_turn(answer: "Answer", context: "ContextUse") -> str:
    """`First token after 0.02 s, 7 tokens (241.8/s), 96 of 112 reused, context 119 of 2,048.`

    The wait is that for this turn: reading and encoding were done before it.
    """
    timings, tokens = answer.timings, answer.tokens
    seeing = timings.read_seconds + timings.encode_seconds - timings.overlap_seconds
    speed = "" if timings.tokens_per_second is None else f" ({timings.tokens_per_second:.1f}/s)"
    return (
        f"First token after {timings.ttft_seconds - seeing:.2f} s, {plural(tokens.new, 'token')}{speed}, "
        f"{tokens.reused:,} of {tokens.prompt:,} reused, context {context.num_tokens:,} of {context.limit:,}."
    )


def describe_fullness(context: "ContextUse", *, can_be_more: bool) -> str:
    """How full the conversation is, what will happen, and what can be done about it."""
    more = ", and a larger --context gives it more room" if can_be_more else ""
    return (
        f"The conversation takes {context.num_tokens:,} of {context.limit:,} tokens: the oldest turns may be dropped "
        f"to make room for the next answer. /reset begins it anew{more}."
    )


def describe_context(chat: "Chat") -> str:
    """`119 of 2,048 tokens, room for 1,929 more; 3 turns, 1 more was dropped.`"""
    use, dropped = chat.context, chat.num_dropped
    gone = f"; {plural(dropped, 'older turn')} dropped" if dropped else ""
    return (
        f"{use.num_tokens:,} of {use.limit:,} tokens, room for {use.room:,} more; "
        f"{plural(len(chat.turns), 'turn')}{gone}."
    )


def describe_times(seconds: "Sequence[float]") -> str:
    """`0:00 0:00.16 0:00.32`."""
    from sfvqa.video.sampling import format_time

    return " ".join(format_time(time) for time in seconds)
