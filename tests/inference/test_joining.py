"""Questions that join those being answered: each is answered as alone, whoever comes and goes beside it."""

import gc
import time
import weakref
from typing import Any

import pytest

from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prefill import prefill_together
from sfvqa.inference.schema import JsonSchema
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowAttention, SlowFastCache
from sfvqa.model.decode_step import StaticDecode

SCHEMA = JsonSchema('{"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}')
OPTIONS = {
    "greedy": GenerationOptions(max_new_tokens=12),
    "drawn": GenerationOptions(max_new_tokens=12, temperature=1.5, seed=3),
    "penalised": GenerationOptions(max_new_tokens=12, repetition_penalty=1.5),
    "seen only at prefill": GenerationOptions(max_new_tokens=12, slow_attention=SlowAttention.PREFILL),
    "by a schema": GenerationOptions(max_new_tokens=40, schema=SCHEMA),
}


@pytest.fixture
def questions(encoded: EncodedVideo, encoded_short: EncodedVideo) -> list[Asked]:
    """About two videos of different lengths, and about none."""
    return [
        Asked(encoded, "What moves?"),
        Asked(encoded_short, "Which colour is the ground, and which the bar?"),
        Asked(encoded, "Where?"),
        Asked(None, "What is a bar?"),
        Asked(encoded_short, "Why?"),
        Asked(encoded, "What moves, and where does it go?"),
    ]


def alone(qa: VideoQA, asked: Asked, options: GenerationOptions) -> Answer:
    run = AnswerRun(qa.checkpoint, [asked], options)
    for _ in run.steps():
        pass
    return run.answer(0)


def joined(run: AnswerRun, joining: list[list[Asked]], every: int) -> list[list[str]]:
    """The pieces of all answers, of which more come every few steps."""
    pieces = []
    for count, step in enumerate(run.steps(), 1):
        pieces.append(step)
        if joining and count % every == 0:
            run.join(joining.pop(0))
    return pieces


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_is_answered_as_alone(qa: VideoQA, questions: list[Asked], options: GenerationOptions, every: int) -> None:
    """Also where it joins with another, and when those before it are over."""
    expected = [alone(qa, asked, options) for asked in questions]
    run = AnswerRun(qa.checkpoint, questions[:1], options, keep=True, beginnings=[])
    pieces = joined(run, [questions[1:3], questions[3:4], questions[4:]], every)
    answers = run.answers()
    assert [(each.text, each.finish_reason, each.tokens.new) for each in answers] == [
        (each.text, each.finish_reason, each.tokens.new) for each in expected
    ]
    by_place = ["".join(step[place] for step in pieces if place < len(step)) for place in range(len(answers))]
    assert by_place == [answer.text for answer in answers]
    assert len(pieces) < sum(answer.tokens.new for answer in answers)


def num_rows_held() -> int:
    """The rows of all caches that are alive, and hold keys and values of their own."""
    gc.collect()
    caches = [each for each in gc.get_objects() if type(each) is SlowFastCache and each.get_seq_length()]
    layers: list[Any] = [cache.layers[0] for cache in caches]
    keys = [layer.keys for layer in layers]
    return sum({tensor.data_ptr(): len(tensor) for tensor in keys}.values())


def test_those_that_are_over_leave_before_the_prompts_of_others_are_read(
    qa: VideoQA, questions: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their keys and values lay beside those of the ones that joined, up to twice what was planned."""
    held: list[int] = []
    there = num_rows_held()

    def noted(*given: Any) -> Any:
        held.append(num_rows_held() - there)
        return prefill_together(*given)

    monkeypatch.setattr("sfvqa.inference.answering.prefill_together", noted)
    run = AnswerRun(qa.checkpoint, questions[:3], GenerationOptions(max_new_tokens=12))
    steps = run.steps()
    next(steps)
    next(steps)
    run.end(0)
    run.end(2)
    run.join(questions[3:5])
    next(steps)
    for place in (1, 3, 4):
        run.end(place)
    run.join(questions[:1])
    next(steps)
    assert held == [0, 1, 0]


@pytest.mark.parametrize(
    "options", [GenerationOptions(max_new_tokens=12), OPTIONS["by a schema"]], ids=["text", "schema"]
)
def test_those_that_are_over_leave_also_where_nobody_joins(
    qa: VideoQA, questions: list[Asked], options: GenerationOptions
) -> None:
    expected = alone(qa, questions[1], options)
    there = num_rows_held()
    run = AnswerRun(qa.checkpoint, questions[:3], options)
    steps = run.steps()
    next(steps)
    assert num_rows_held() - there == 3
    run.end(0)
    run.end(2)
    next(steps)
    assert num_rows_held() - there == 1
    assert len(list(steps)[-1]) == 3  # each keeps its place
    assert run.answer(1).text == expected.text


def test_nothing_is_kept_of_one_whose_answer_was_taken(qa: VideoQA, questions: list[Asked]) -> None:
    """Each of hundreds that joined a run left its prompt and its matcher there until all were over."""
    run = AnswerRun(qa.checkpoint, questions[:2], OPTIONS["by a schema"])
    steps = run.steps()
    next(steps)
    assert run._guide is not None
    left: list[weakref.ref[Any]] = [weakref.ref(run._rows[0]), weakref.ref(run._rows[0].prompt)]
    run.end(0)
    run.join(questions[2:3])
    run.forget(0)
    gc.collect()
    assert [dead for dead in left if dead() is not None] == []
    assert list(run._guide._matchers) == [1, 2]
    list(steps)
    assert [run.is_over(place) for place in range(3)] == [True, True, True]
    assert run.answer(2).text == alone(qa, questions[2], OPTIONS["by a schema"]).text


def test_choices_are_compared_for_the_rest_when_one_was_taken(qa: VideoQA, questions: list[Asked]) -> None:
    choices = ["a bar", "a ball"]
    expected = AnswerRun(qa.checkpoint, questions[:3], GenerationOptions(), choices=choices)
    list(expected.steps())
    run, taken = AnswerRun(qa.checkpoint, questions[:3], GenerationOptions(), choices=choices), []
    for place, pieces in enumerate(run.steps()):
        assert [run.is_over(each) for each in range(3)] == [each <= place for each in range(3)]
        assert pieces[place]
        taken.append(run.answer(place).choices)
        run.forget(place)
    assert taken == [answer.choices for answer in expected.answers()]


def test_one_that_ends_is_not_computed_for_those_that_join(qa: VideoQA, questions: list[Asked]) -> None:
    run = AnswerRun(qa.checkpoint, questions[:2], GenerationOptions(max_new_tokens=12), beginnings=[])
    steps = run.steps()
    next(steps)
    run.end(0)
    run.join(questions[2:3])
    rest = list(steps)
    assert not any(step[0] for step in rest)
    assert run.answer(0).finish_reason is FinishReason.INTERRUPTED
    assert run.answer(2).text == alone(qa, questions[2], GenerationOptions(max_new_tokens=12)).text


def test_what_is_wrong_with_one_that_would_join_is_no_matter_of_the_others(qa: VideoQA, questions: list[Asked]) -> None:
    options = GenerationOptions(max_new_tokens=12)
    run = AnswerRun(qa.checkpoint, questions[:1], options, beginnings=[])
    steps = run.steps()
    next(steps)
    with pytest.raises(Exception, match="more than the model's"):
        run.join([questions[1], Asked(None, "What is it? " * 5000)])
    assert len(list(steps)[-1]) == 1
    assert run.answer(0).text == alone(qa, questions[0], options).text


def test_each_has_the_times_it_waited(qa: VideoQA, questions: list[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.1)
        return prefill_together(*given)

    monkeypatch.setattr("sfvqa.inference.answering.prefill_together", slow)
    run = AnswerRun(qa.checkpoint, questions[:1], GenerationOptions(max_new_tokens=12), beginnings=[])
    joined(run, [questions[1:2]], 6)
    first, second = (answer.timings for answer in run.answers())
    assert (first.asked_together, second.asked_together) == (1, 2)
    assert second.prefill_seconds >= 0.1
    assert first.decode_seconds >= 0.1  # the prefill of the other, for which it waited


def test_an_answer_that_is_ended_is_over(qa: VideoQA, questions: list[Asked]) -> None:
    """Or who waits for one that cannot go on would hear of it when all others are answered."""
    run = AnswerRun(qa.checkpoint, questions[:2], GenerationOptions(max_new_tokens=4))
    next(run.steps())
    run.end(0)
    assert (run.is_over(0), run.is_over(1)) == (True, False)


def test_nobody_joins_where_the_cache_forgets(
    qa: VideoQA, questions: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sliding window holds the last positions alone, which are others for every row."""
    monkeypatch.setattr(SlowFastCache, "is_forkable", property(lambda _: False))
    assert not AnswerRun(qa.checkpoint, questions[:2], GenerationOptions()).can_be_joined


@pytest.mark.parametrize(
    "options", [GenerationOptions(evidence=True), GenerationOptions(static_decode=StaticDecode.ON)], ids=str
)
def test_what_has_a_fixed_size_cannot_be_joined(
    qa: VideoQA, questions: list[Asked], options: GenerationOptions
) -> None:
    assert AnswerRun(qa.checkpoint, questions[:2], GenerationOptions()).can_be_joined
    assert not AnswerRun(qa.checkpoint, questions[:2], options).can_be_joined
