"""Answers by a JSON schema are valid by it, or an error; what was valid anyway is not changed, and no schema hurts."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sfvqa.cli.options import BUNDLED_VIDEOS
from sfvqa.errors import SchemaNotMetError, UsageError
from sfvqa.inference import schema as trials
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions, TokenChooser, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.inference.schema import JsonSchema, SchemaGuide
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model.decode_step import StaticDecode

QUESTIONS = ("What colour does the screen flash?", "Which digit is shown?", "Describe the video.")
FLASH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "digit": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "digit"],
    "additionalProperties": False,
}


def schema_of(value: object) -> JsonSchema:
    return JsonSchema(json.dumps(value))


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def shapes(tiny: VideoQA) -> EncodedVideo:
    return tiny.encode(BUNDLED_VIDEOS / "shapes.mp4")


@pytest.fixture(scope="module")
def by_schema() -> GenerationOptions:
    return GenerationOptions(schema=schema_of(FLASH))


# --- what can be a schema ---


def test_a_schema_keeps_the_order_of_its_keys_and_nothing_between_them() -> None:
    assert JsonSchema('{ "type" : "object",\n "properties": {"b": {}, "a": {"const": "é"}} }').text == (
        '{"type":"object","properties":{"b":{},"a":{"const":"é"}}}'
    )
    assert JsonSchema.any_object().text == '{"type":"object"}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ('{"type": NaN}', "not valid JSON"),
        ('{"maximum": 1e999}', "not valid JSON"),
        (r'{"const": "\ud800"}', "not valid JSON"),
        ("[" * 100_000, "nested too deep"),
        ("\ud800", "not valid JSON"),
        ("3", "no JSON object"),
        ("true", "no JSON object"),
        ('{"type": "objet"}', "Invalid type: objet"),
        ('{"type": "object", "required": "a"}', "Expected array for 'required'"),
        ('{"not": {}}', "not"),
        ('{"not": {}, "x-guidance": {"lenient": true}}', "not"),
        ('{"uniqueItems": true, "type": "array"}', "uniqueItems"),
        ('{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "oneOf constraints are not supported"),
        ('{"type": "string", "format": "nope"}', "Unknown format: nope"),
        ('{"type": "string", "pattern": "(?=a)b"}', "look-around"),
        ('{"$ref": "http://example.com/schema"}', "does not fetch"),
        ('{"$ref": "file:///etc/passwd"}', "does not fetch"),
        ('{"$ref": "#/nowhere"}', "does not exist"),
        ('{"$ref": "#"}', "no JSON is valid by it"),
        ('{"enum": []}', "Unsatisfiable"),
        ('{"type": "integer", "minimum": 5, "maximum": 3}', "Unsatisfiable"),
        ('{"allOf": [{"type": "string"}, {"type": "number"}]}', "Unsatisfiable"),
        ('{"type": "object", "required": ["b"], "additionalProperties": false}', "Unsatisfiable"),
    ],
)
def test_what_is_no_schema_or_cannot_be_enforced_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="schema") as caught:
        JsonSchema(text)
    assert says in caught.value.message
    assert len(caught.value.message) < 500


def test_what_is_remembered_of_schemas_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def take(text: str) -> str:
        tried.append(text)
        return ""

    monkeypatch.setattr(trials, "_REASONS", {})
    monkeypatch.setattr(trials, "_MOST_REMEMBERED", 2)
    monkeypatch.setattr(trials, "_tried_apart", take)
    for name in ("a", "b", "a", "c", "a", "b"):
        JsonSchema(json.dumps({"const": name * 1000}))
    assert [text[10] for text in tried] == ["a", "b", "c", "b"]
    assert all(len(digest) == 32 for digest in trials._REASONS)
    assert len(trials._REASONS) == 2


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def chained(count: int) -> Any:
    """Definitions that each refer to the next, which what reads them does on its stack."""
    links: Any = {f"{place}": {"items": {"$ref": f"#/$defs/{place + 1}"}} for place in range(count)}
    return {"$defs": {**links, f"{count}": {}}, "$ref": "#/$defs/0"}


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param({"enum": [f"value {number}" for number in range(200_000)]}, id="values"),
        pytest.param(nested(300), id="depth"),
        pytest.param(chained(5000), id="chain"),
        pytest.param({"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(8)]} for i in range(8)]}),
        pytest.param({"type": "integer", "multipleOf": 999_999_937}, id="fuel"),
        pytest.param({"type": "integer", "multipleOf": 9_999_991}, id="seconds", marks=pytest.mark.slow),
    ],
)
def test_a_schema_that_takes_too_much_is_refused(bomb: object) -> None:
    with pytest.raises(UsageError, match="schema"):
        schema_of(bomb)


@pytest.mark.parametrize(
    "large",
    [
        {"type": "array", "items": {"type": "string"}, "minItems": 10**6, "maxItems": 10**9},
        {"type": "string", "minLength": 10**6},
        {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
        {"enum": [f"value {number}" for number in range(20_000)]},
        {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(1500)}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        nested(40),
        chained(50),
    ],
)
def test_a_large_one_is_an_answer_or_an_error(tiny: VideoQA, large: object) -> None:
    (answer,) = tiny.answer_batch([(None, "Which?")], GenerationOptions(40, schema=schema_of(large)))
    if answer.error is None:
        jsonschema.validate(answer.fields, large)


# --- every answer is valid ---

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6)
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), _NAMES)


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-1000, 1000))
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    if draw(st.booleans()):
        schema |= {"minimum": low, "maximum": low + draw(st.integers(0, 2000))}
    elif draw(st.booleans()):
        schema |= {draw(st.sampled_from(["exclusiveMinimum", "minimum", "maximum", "exclusiveMaximum"])): low}
    elif draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 20))
    return schema


@st.composite
def _texts(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 3)) == 0:
        patterns = ["^[a-c]{2,5}$", "^\\d{3}-\\d{2}$", "^(red|green) [A-Z]+$", "é+"]
        return {"type": "string", "pattern": draw(st.sampled_from(patterns))}
    if draw(st.integers(0, 3)) == 0:
        return {"type": "string", "format": draw(st.sampled_from(["date", "time", "date-time", "ipv4", "uuid"]))}
    shortest = draw(st.integers(0, 5))
    return {"type": "string", "minLength": shortest, "maxLength": shortest + draw(st.integers(0, 20))}


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(_NAMES, inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = [name for name in properties if draw(st.booleans())]
    if draw(st.integers(0, 2)):
        schema["additionalProperties"] = draw(st.one_of(st.just(False), inner))
    return schema


@st.composite
def _lists(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    fewest = draw(st.integers(0, 2))
    schema = {"type": "array", "items": draw(inner), "minItems": fewest, "maxItems": fewest + draw(st.integers(0, 2))}
    return schema if draw(st.booleans()) else {**schema, "prefixItems": [draw(inner)]}


_PARTS = st.recursive(
    st.one_of(
        _numbers(),
        _texts(),
        st.builds(lambda values: {"enum": values}, st.lists(_SCALARS, min_size=1, max_size=5)),
        st.builds(lambda value: {"const": value}, st.one_of(_SCALARS, st.lists(_SCALARS, max_size=2))),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {}]),
    ),
    lambda inner: st.one_of(
        _objects(inner),
        _lists(inner),
        st.builds(lambda schemas: {"anyOf": schemas}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)
_NODE = {"$ref": "#/$defs/node"}
SCHEMAS = st.one_of(
    _PARTS,
    _PARTS,
    st.builds(
        lambda leaf: {"$defs": {"node": {"type": "object", "properties": {"leaf": leaf, "next": _NODE}}}, **_NODE},
        _PARTS,
    ),
)


def check_random_schemas(tiny: VideoQA, num_schemas: int, least_share: float) -> None:
    """Answers greedy and drawn; those cut off are errors, and at least a share of all are whole."""
    outcomes: list[bool] = []

    @settings(
        max_examples=num_schemas,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMAS, st.sampled_from([0.0, 1.0]), st.integers(0, 1000))
    def check(schema: dict[str, Any], temperature: float, seed: int) -> None:
        options = GenerationOptions(400, temperature, seed=seed, schema=schema_of(schema))
        for answer in tiny.answer_batch([(None, QUESTIONS[0]), (None, QUESTIONS[2])], options):
            outcomes.append(answer.error is None)
            if answer.error is None:
                assert answer.fields == json.loads(answer.text)
                jsonschema.Draft202012Validator(schema).validate(answer.fields)
            else:
                assert answer.finish_reason is FinishReason.LENGTH
                assert answer.fields is None

    check()
    assert sum(outcomes) > least_share * len(outcomes)


def test_every_answer_is_valid_by_its_schema(tiny: VideoQA) -> None:
    check_random_schemas(tiny, 6, least_share=0)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_every_answer_is_valid_by_each_of_500_schemas(tiny: VideoQA, part: int) -> None:
    assert part < 5  # so that processes may share them
    check_random_schemas(tiny, 100, least_share=0.5)


# --- what is valid is not changed ---


def guide_of(qa: VideoQA, schema: JsonSchema, num_answers: int = 1) -> SchemaGuide:
    size = qa.checkpoint.model.config.decoder_config.vocab_size
    return SchemaGuide(schema, qa.checkpoint.tokenizer, qa.checkpoint.end_token_ids, size, num_answers)


def written_by(qa: VideoQA, guide: SchemaGuide, token_ids: list[int]) -> Iterator[int]:
    """The tokens chosen with a guide where the model finds `token_ids` likeliest, one after the other."""
    size = qa.checkpoint.model.config.decoder_config.vocab_size
    chooser = TokenChooser(GenerationOptions(), 1, torch.device("cpu"))
    for token_id in token_ids:
        logits = torch.zeros(1, size)
        logits[0, token_id] = 1
        (chosen,) = chooser.choose(logits, lambda scores: guide.mask(scores, [True])).wait()
        yield chosen
        guide.take(0, chosen)


_PLAIN = st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f")  # which must be escaped for it


@settings(deadline=None)
@given(
    value=st.fixed_dictionaries(
        {"text": st.text(_PLAIN), "list": st.lists(st.integers(), max_size=4)},
        optional={"yes": st.booleans(), "share": st.floats(allow_nan=False, allow_infinity=False)},
    ),
    indent=st.sampled_from([None, 0, 2, 4, "\t"]),
    compact=st.booleans(),
    around=st.sampled_from([("", ""), (" ", ""), ("\n", "\n")]),
)
def test_valid_json_is_written_token_for_token(
    tiny: VideoQA, value: dict[str, Any], indent: int | str | None, compact: bool, around: tuple[str, str]
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "yes": {"type": "boolean"},
            "share": {"type": "number"},
        },
        "required": ["text", "list"],
    }
    in_order = {name: value[name] for name in schema["properties"] if name in value}
    separators = (",", ":") if compact else None
    text = json.dumps(in_order, indent=indent, separators=separators, ensure_ascii=False)
    ids = tiny.checkpoint.tokenizer(around[0] + text + around[1], add_special_tokens=False)["input_ids"]
    wanted = [*ids, min(tiny.checkpoint.end_token_ids)]
    assert list(written_by(tiny, guide_of(tiny, schema_of(schema)), wanted)) == wanted


def test_an_answer_ends_where_it_is_whole_and_nowhere_else(tiny: VideoQA) -> None:
    guide, end = guide_of(tiny, schema_of({"enum": ["red", "redder"]})), min(tiny.checkpoint.end_token_ids)
    ids = tiny.checkpoint.tokenizer('"redder', add_special_tokens=False)["input_ids"]
    size = tiny.checkpoint.model.config.decoder_config.vocab_size

    def may_end() -> bool:
        return bool(guide.mask(torch.zeros(1, size), [True])[0, end] == 0)

    for token_id in ids:
        assert not may_end()
        guide.take(0, token_id)
    guide.take(0, tiny.checkpoint.tokenizer('"', add_special_tokens=False)["input_ids"][0])
    assert may_end()
    scores = guide.mask(torch.zeros(1, size), [True])
    assert all(scores[0, token_id] == 0 for token_id in tiny.checkpoint.end_token_ids)


# --- the same answer however it is asked for ---


@pytest.mark.parametrize("more", [{}, {"temperature": 1.0, "seed": 5, "top_p": 0.9, "repetition_penalty": 1.3}])
def test_batches_streams_kept_prompts_and_static_decode_write_the_same(
    tiny: VideoQA, shapes: EncodedVideo, by_schema: GenerationOptions, more: dict[str, Any]
) -> None:
    options = replace(by_schema, **more)
    alone = [tiny.ask(shapes, question, options) for question in QUESTIONS]
    for answer in alone:
        assert isinstance(answer.fields, dict)
        jsonschema.validate(answer.fields, FLASH)
        assert answer.finish_reason is FinishReason.STOP
        assert answer.settings.schema == options.schema.text  # type: ignore[union-attr]
    texts = [answer.text for answer in alone]
    asked = [(shapes, question) for question in QUESTIONS]
    assert [answer.text for answer in tiny.answer_batch(asked, options)] == texts
    assert ["".join(stream) for stream in tiny.stream_all(shapes, QUESTIONS, options)] == texts
    static = replace(options, static_decode=StaticDecode.ON)
    assert [answer.text for answer in tiny.answer_batch(asked, static)] == texts
    watched = tiny.ask(shapes, QUESTIONS[0], replace(options, evidence=True))
    assert watched.text == texts[0]
    assert watched.evidence


def test_an_answer_depends_on_the_question(tiny: VideoQA, shapes: EncodedVideo, by_schema: GenerationOptions) -> None:
    texts = {tiny.ask(shapes, question, by_schema).text for question in QUESTIONS}
    assert len(texts) > 1 or tiny.ask(None, "Why?", by_schema).text not in texts


# --- what is not whole is an error ---


def test_an_answer_that_is_cut_is_an_error_and_its_neighbours_are_not(tiny: VideoQA, shapes: EncodedVideo) -> None:
    schema = schema_of({"type": "array", "items": {"enum": ["red", "green", "a"]}, "minItems": 2, "maxItems": 6})
    options = GenerationOptions(400, temperature=1.0, seed=3, schema=schema)
    asked = [(shapes, question) for question in (*QUESTIONS, "Why?")]
    whole = tiny.answer_batch(asked, options)
    counts = [answer.tokens.new for answer in whole]
    assert min(counts) < max(counts)
    cut = tiny.answer_batch(asked, replace(options, max_new_tokens=max(counts) - 2))
    for before, answer in zip(whole, cut, strict=True):
        if before.tokens.new == max(counts):
            assert isinstance(answer.error, SchemaNotMetError)
            assert "--max-new-tokens" in answer.error.with_flags
            assert answer.fields is None
        else:
            assert (answer.text, answer.fields, answer.error) == (before.text, before.fields, None)


def test_an_answer_that_is_whole_where_its_tokens_end_is_none(tiny: VideoQA, shapes: EncodedVideo) -> None:
    options = GenerationOptions(schema=schema_of({"enum": ["red", "green", "blue"]}))
    whole = tiny.ask(shapes, QUESTIONS[0], options)
    answer = tiny.ask(shapes, QUESTIONS[0], replace(options, max_new_tokens=whole.tokens.new - 1))
    assert (answer.fields, answer.finish_reason, answer.tokens.new) == (whole.fields, "stop", whole.tokens.new - 1)
    with pytest.raises(SchemaNotMetError, match="before it was whole"):
        tiny.ask(shapes, QUESTIONS[0], replace(options, max_new_tokens=3))


def test_a_number_at_the_last_token_may_be_cut(tiny: VideoQA, shapes: EncodedVideo) -> None:
    options = GenerationOptions(1, schema=schema_of({"type": "integer", "minimum": 0, "maximum": 99}))
    with pytest.raises(SchemaNotMetError, match="before it was whole"):
        tiny.ask(shapes, QUESTIONS[1], options)


def test_asking_and_streaming_raise_it(tiny: VideoQA, shapes: EncodedVideo, by_schema: GenerationOptions) -> None:
    short = replace(by_schema, max_new_tokens=3)
    with pytest.raises(SchemaNotMetError, match="cut at 3 new tokens"):
        tiny.ask(shapes, QUESTIONS[0], short)
    with tiny.stream(shapes, QUESTIONS[0], short) as stream, pytest.raises(SchemaNotMetError):
        list(stream)
    chat = tiny.chat(shapes, short)
    with pytest.raises(SchemaNotMetError):
        chat.ask(QUESTIONS[0])
    assert chat.turns == ()


def test_an_answer_that_is_left_has_neither_fields_nor_an_error(
    tiny: VideoQA, shapes: EncodedVideo, by_schema: GenerationOptions
) -> None:
    with tiny.stream(shapes, QUESTIONS[0], by_schema) as stream:
        next(stream)
    answer = stream.answer
    assert (answer.finish_reason, answer.fields, answer.error) == (FinishReason.INTERRUPTED, None, None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_the_parser_gives_up_on_is_an_error(tiny: VideoQA, temperature: float) -> None:
    many = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(1500)}}
    with pytest.raises(SchemaNotMetError, match="could not be written by its schema"):
        tiny.ask(None, "Which?", GenerationOptions(temperature=temperature, top_p=0.9, schema=schema_of(many)))


def test_an_answer_that_cannot_go_on_leaves_the_others_running(qa: VideoQA) -> None:
    class Stuck:
        """Lets the second of three answers go no further than two tokens."""

        count = 0

        def mask(self, scores: torch.Tensor, running: list[bool], places: list[int]) -> torch.Tensor:  # noqa: ARG002
            running[1] = running[1] and self.count < 2
            self.count += 1
            return scores

        def take(self, place: int, token_id: int) -> None:
            """Nothing is kept."""

    state, options = prefill(qa.checkpoint.model, [[1, 2], [3, 4], [5, 6]], None), GenerationOptions(5)
    steps = list(generate_tokens(qa.checkpoint.model, state, options, frozenset(), guide=Stuck()))  # type: ignore[arg-type]
    assert [[token is not None for token in step] for step in steps] == [[True, count < 2, True] for count in range(5)]


@pytest.mark.parametrize("text", ["1e999", "-1e999"])
def test_a_number_that_no_record_can_hold_is_no_value(text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        JsonSchema.any_object().parse(f'{{"a": {text}}}')
    with pytest.raises(ValueError, match="nested too deep"):
        JsonSchema.any_object().parse("[" * 100_000)


# --- what it cannot be combined with ---


def test_choices_and_texts_to_stop_at_contradict_a_schema(
    tiny: VideoQA, shapes: EncodedVideo, by_schema: GenerationOptions
) -> None:
    with pytest.raises(UsageError, match=r"schema is .*choices are compared"):
        tiny.ask(shapes, QUESTIONS[0], by_schema, choices=["red", "green"])
    with pytest.raises(UsageError, match="where the schema says"):
        replace(by_schema, stop=("\n",))
    with pytest.raises(UsageError, match="It must be a JsonSchema"):
        GenerationOptions(schema={"type": "object"})  # type: ignore[arg-type]
