"""Answers as JSON by a schema: which schemas can be, and which tokens each answer may go on with, by llguidance.

Keywords that llguidance cannot enforce are refused, not ignored (`not`, `if`, `uniqueItems`, `oneOf` of what overlaps).
Keys come in the order in which the schema names them. White space may stand wherever JSON allows it, but only as people
and programs write it, a space, or a line break and an indent: a weak model would write nothing else.
"""

import contextlib
import hashlib
import json
import math
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sfvqa.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llguidance import LLParserLimits, LLTokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

LONGEST_SCHEMA = 500_000
"""Characters."""

_SPACE = r"\x20|\x0D?\x0A(\x20{0,16}|\x09{0,8})"
_ITS_OWN_SPACE = f"start: SPACE? @schema SPACE?\nSPACE: /{_SPACE}/"
_LONGEST_REASON = 300


@dataclass(frozen=True)
class JsonSchema:
    """A JSON schema by which answers are written, as JSON text. UsageError when built of what cannot be one.

    It is first tried in a process of its own, once: what would take too much time, memory or stack is refused there.
    """

    text: str

    def __post_init__(self) -> None:
        compact = _compact(self.text)
        if not compact.startswith("{"):
            raise UsageError("The JSON schema is no JSON object.", 'Write one such as {"type": "object"}.')
        if len(compact) > LONGEST_SCHEMA:
            raise UsageError(f"The JSON schema has more than {LONGEST_SCHEMA:,} characters.", "Use a shorter one.")
        object.__setattr__(self, "text", compact)
        if reason := _why_impossible(compact):
            raise UsageError(f"No answer can be written by this JSON schema: {reason}.", "Correct or simplify it.")

    @classmethod
    def any_object(cls) -> "JsonSchema":
        """Any JSON object."""
        return cls('{"type": "object"}')

    def parse(self, answer: str) -> object:
        """The value that an answer is; ValueError where Python or a record could not hold it."""
        try:
            return json.loads(answer, parse_float=_finite)
        except RecursionError:
            raise ValueError("it is nested too deep") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _compact(text: str) -> str:
    """JSON without white space between its parts; UsageError for what is none, or is no text."""
    try:
        compact = json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        compact.encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error).rstrip(".")
        raise UsageError(f"The JSON schema is not valid JSON: {reason}.", "Correct it.") from None
    return compact


# --- trying a schema, in a process of its own ---

_PROGRAM = "import sys; sys.path[:] = {path!r}; from sfvqa.inference.schema import main; main()"
_CPU_SECONDS = 5  # what is refused for good reasons takes a hundredth of one
_MEMORY_BYTES = 2 * 1024**3
_STACK_BYTES = 2 * 1024**2  # a quarter of what threads have here, which go as deep
_LONGEST_WAIT_SECONDS = 60.0  # where processors are busy, or have no limits


_MOST_REMEMBERED = 256
_REASONS: dict[bytes, str] = {}  # by the digest of a schema, which may be long


def _why_impossible(text: str) -> str:
    """Why no answer can be written by a schema; empty where one can. UsageError where that could not be found out."""
    digest = hashlib.sha256(text.encode()).digest()
    reason = _REASONS.pop(digest, None)
    if reason is None:
        reason = _tried_apart(text)
    if len(_REASONS) >= _MOST_REMEMBERED:  # more go where threads are here at once, which only costs another trial
        for least_used in list(_REASONS)[: 1 + len(_REASONS) - _MOST_REMEMBERED]:
            _REASONS.pop(least_used, None)
    _REASONS[digest] = reason
    return reason


def _tried_apart(text: str) -> str:
    """The same, found out in a process of its own."""
    program = _PROGRAM.format(path=list(map(str, sys.path)))
    try:
        process = subprocess.run(
            [sys.executable, "-c", program], input=text.encode(), capture_output=True, timeout=_LONGEST_WAIT_SECONDS
        )
    except subprocess.TimeoutExpired:  # raised, so that it is not remembered: the machine may have been busy
        raise UsageError("The JSON schema takes too long to make ready.", "Simplify it, or try again.") from None
    if process.returncode:
        return "it takes too much time, memory or depth to make ready"
    return process.stdout.decode(errors="replace")


def main() -> None:
    """Try the schema on standard input within this process's limits, and print why no answer can be written by it."""
    _limit_this_process()
    text, reasons = sys.stdin.buffer.read().decode(), list[str]()
    threading.stack_size(_STACK_BYTES)
    trial = threading.Thread(target=lambda: reasons.append(_try(text)))
    trial.start()
    trial.join(_LONGEST_WAIT_SECONDS)
    sys.stdout.buffer.write(reasons[0].encode())  # IndexError, and so an exit code, if it failed


def _limit_this_process() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_AS, _MEMORY_BYTES)):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS may refuse
            resource.setrlimit(kind, (limit, limit))


def _try(text: str) -> str:
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

    try:
        grammar = _grammar(text)
    except ValueError as error:
        return _reason(str(error))
    is_wrong, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=_limits())
    if is_wrong:
        return _reason(messages[0])
    matcher = LLMatcher(LLTokenizer(TokenizerWrapper(_Bytes())), grammar, log_level=0, limits=_limits())
    first_bytes = int.from_bytes(matcher.compute_bitmask(), "little")
    if matcher.is_error() and "NoExtension" not in matcher.get_error():
        return _reason(matcher.get_error())
    is_possible = first_bytes & ~sum(1 << space for space in b" \n\r\t")
    return "" if is_possible and not matcher.is_error() else "no JSON is valid by it"


class _Bytes:
    """A tokenizer whose tokens are bytes, for llguidance."""

    tokens = (*(bytes([value]) for value in range(256)), b"<end>")
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _reason(message: str) -> str:
    """The first sentence of an error, short, to stand within another."""
    lines = [line.strip() for line in message.split("<non-verbose/>")[0].splitlines() if line.strip()]
    said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), (lines or ["?"])[0])
    return said.split(". ")[0][:_LONGEST_REASON].rstrip(".")


def _grammar(text: str) -> str:
    """What llguidance is to follow; ValueError for what it cannot read."""
    from llguidance import LLMatcher

    # Overrides, so that nothing a schema says itself makes llguidance ignore what it cannot do.
    options: Any = {
        "whitespace_flexible": True,
        "whitespace_pattern": _SPACE,
        "lenient": False,
        "coerce_one_of": False,
        "item_separator": ",",
        "key_separator": ":",
    }
    document = json.loads(LLMatcher.grammar_from_json_schema(text, overrides=options))
    (schema,) = document["grammars"]
    return json.dumps({"grammars": [{"lark_grammar": _ITS_OWN_SPACE}, {**schema, "name": "schema"}]})


def _limits() -> "LLParserLimits":
    from llguidance import LLParserLimits

    return LLParserLimits(verbose_errors=False)


# --- writing by a schema ---

_TOKENIZERS: "WeakKeyDictionary[PreTrainedTokenizerBase, LLTokenizer]" = WeakKeyDictionary()


class SchemaGuide:
    """Which tokens each answer of a batch may go on with, so that it is JSON by a schema; end tokens where it may end.

    `troubles` say, by their places, why answers could not go on. The tokenizer is prepared once for a checkpoint.
    Raises CheckpointError for one that cannot be followed, UsageError where no token ends an answer.
    """

    def __init__(
        self,
        schema: JsonSchema,
        tokenizer: "PreTrainedTokenizerBase",
        end_token_ids: frozenset[int],
        vocabulary_size: int,
        batch_size: int,
    ) -> None:
        import numpy as np
        from llguidance import LLMatcher

        if not end_token_ids:
            raise UsageError(
                "The checkpoint names no token that ends an answer, so that none in a schema would end.",
                "Leave out the schema.",
            )
        prepared = _prepared(tokenizer, end_token_ids, vocabulary_size)
        self._fresh = LLMatcher(prepared, _grammar(schema.text), log_level=0, limits=_limits())
        self._matchers: dict[int, LLMatcher] = {}  # by their places
        self._num_answers = 0
        self._vocabulary_size = vocabulary_size
        self.troubles: dict[int, str] = {}
        self._bits = np.zeros((batch_size, -(-vocabulary_size // 32)), dtype=np.int32)
        self.add(batch_size)

    def add(self, num_answers: int) -> None:
        """Take more answers, in the next places."""
        for _ in range(num_answers):
            self._matchers[self._num_answers] = self._fresh.deep_copy()
            self._num_answers += 1

    def forget(self, place: int) -> None:
        """Let go of an answer that is over."""
        del self._matchers[place]
        self.troubles.pop(place, None)

    def mask(self, scores: "Tensor", running: list[bool], places: "Sequence[int] | None" = None) -> "Tensor":
        """`scores` `[B, V]` with minus infinity for what may not come next, without waiting for their device.

        They are of the answers in these `places`, or of all. An answer that can go on with nothing is ended in
        `running`.
        """
        import numpy as np
        import torch
        from llguidance.numpy import fill_next_token_bitmask

        if len(self._bits) != len(scores):
            self._bits = np.zeros((len(scores), self._bits.shape[1]), dtype=np.int32)
        for row, place in enumerate(range(len(scores)) if places is None else places):
            if running[place]:
                matcher = self._matchers[place]
                fill_next_token_bitmask(matcher, self._bits, row)
                if matcher.is_error() or not self._bits[row].any():
                    self.troubles[place] = _reason(matcher.get_error() or "no token can come next")
                    running[place] = False
        bits = np.unpackbits(self._bits.view(np.uint8), axis=1, bitorder="little")
        forbidden = torch.from_numpy(bits[:, : self._vocabulary_size] == 0)
        if scores.device.type == "cuda":  # unpinned memory would first wait for what the device is at
            forbidden = forbidden.pin_memory()
        return scores.masked_fill(forbidden.to(scores.device, non_blocking=True), -math.inf)

    def take(self, place: int, token_id: int) -> None:
        """Go on behind a token of an answer."""
        self._matchers[place].consume_token(token_id)

    def is_whole_with(self, place: int, token_id: int) -> bool:
        """Whether an answer is whole by its schema with this last token, behind which no end token had room."""
        matcher = self._matchers[place].deep_copy()
        return matcher.consume_token(token_id) and matcher.is_accepting()


def _prepared(
    tokenizer: "PreTrainedTokenizerBase", end_token_ids: "Iterable[int]", vocabulary_size: int
) -> "LLTokenizer":
    from llguidance.hf import from_tokenizer

    if tokenizer not in _TOKENIZERS:
        fast: Any = tokenizer
        try:
            _TOKENIZERS[tokenizer] = from_tokenizer(fast, n_vocab=vocabulary_size, eos_token=sorted(end_token_ids))
        except ValueError as error:
            raise CheckpointError(
                f"The checkpoint's tokenizer cannot be followed through a schema: {_reason(str(error))}.",
                "Leave out the schema.",
            ) from error
    return _TOKENIZERS[tokenizer]
