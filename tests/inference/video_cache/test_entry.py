"""An entry gives back what was put into it, bit for bit, or says that it is damaged; nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfvqa.inference.encode import SeenVideo
from sfvqa.inference.video_cache import entry
from sfvqa.inference.video_cache.entry import DamagedEntryError, EncodingKey, entry_bytes, read_entry, read_facts
from tests.inference.video_cache.seen import VIDEO, key_of, seen_of

DTYPES = ("float32", "bfloat16", "float16")


def write(path: Path, key: EncodingKey, seen: SeenVideo) -> bytes:
    data = b"".join(entry_bytes(key, seen))
    path.write_bytes(data)
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where an entry is, of some video."""
    write(tmp_path / "entry", key_of(), seen_of())
    return tmp_path / "entry"


def facts_of(seen: SeenVideo) -> dict[str, object]:
    return {name: value for name, value in vars(seen).items() if name != "visual_tokens"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    """NaN, infinities and negative zero too: bits are compared, not numbers."""
    seen = seen_of(3, dtype)
    seen.visual_tokens.flatten()[:4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-7]).to(getattr(torch, dtype))
    write(tmp_path / "entry", key_of(3, dtype), seen)
    back = read_entry(tmp_path / "entry", key_of(3, dtype), VIDEO)
    assert back.visual_tokens.dtype == seen.visual_tokens.dtype
    assert torch.equal(back.visual_tokens.view(torch.uint8), seen.visual_tokens.view(torch.uint8))
    assert facts_of(back) == facts_of(seen)
    assert type(back.crop) is type(seen.crop)


def test_tokens_that_do_not_lie_in_order_in_memory_come_back(tmp_path: Path) -> None:
    seen = replace(seen_of(), visual_tokens=seen_of().visual_tokens.transpose(1, 2))
    assert not seen.visual_tokens.is_contiguous()
    write(tmp_path / "entry", key_of(), seen)
    assert torch.equal(read_entry(tmp_path / "entry", key_of(), VIDEO).visual_tokens, seen.visual_tokens)


def test_tokens_of_an_inference_come_back(tmp_path: Path) -> None:
    with torch.inference_mode():
        seen = replace(seen_of(), visual_tokens=seen_of().visual_tokens * 2)
    write(tmp_path / "entry", key_of(), seen)
    assert torch.equal(read_entry(tmp_path / "entry", key_of(), VIDEO).visual_tokens, seen.visual_tokens)


def test_the_header_alone_gives_the_facts(path: Path) -> None:
    facts, seen = read_facts(path), seen_of()
    assert facts.key == key_of().to_dict()
    assert facts.shape == tuple(seen.visual_tokens.shape)
    assert facts_of(facts.with_tokens(seen.visual_tokens)) == facts_of(seen)


def test_the_video_is_where_it_lies_now(path: Path) -> None:
    assert read_entry(path, key_of(), Path("/moved.mp4")).video.path == Path("/moved.mp4")
    assert read_facts(path).video.path == VIDEO


@pytest.mark.parametrize(
    "name",
    [
        "clip\udcff.mp4",  # how Python spells a byte that is not UTF-8
        "é “quoted” \\ \n\x1b[31m.mp4",
        f'"header_sha256":"{"0" * 64}"',
        f'"tensor_sha256":"{"0" * 64}"',
    ],
)
def test_names_of_any_kind_come_back(tmp_path: Path, name: str) -> None:
    seen = seen_of(path=Path("/videos") / name)
    write(tmp_path / "entry", key_of(), seen)
    assert read_facts(tmp_path / "entry").video.path == seen.video.path
    assert torch.equal(read_entry(tmp_path / "entry", key_of(), VIDEO).visual_tokens, seen.visual_tokens)


def test_any_tool_can_open_it(path: Path) -> None:
    assert torch.equal(load_file(path)["visual_tokens"], seen_of().visual_tokens)


@pytest.mark.slow
def test_every_changed_byte_is_noticed(path: Path) -> None:
    """Wherever: in the length of the header, the header, its checksums, the padding, the tokens."""
    whole, key = path.read_bytes(), key_of()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedEntryError):
            read_entry(path, key, VIDEO)


def test_a_changed_byte_of_the_header_is_noticed_by_the_header_alone(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedEntryError):
            read_facts(path)


@pytest.mark.slow
def test_wherever_it_is_cut_it_is_damaged(path: Path) -> None:
    whole, key = path.read_bytes(), key_of()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedEntryError):
            read_entry(path, key, VIDEO)
        with pytest.raises(DamagedEntryError):
            read_facts(path)


@pytest.mark.parametrize("data", [b"\0", b"\0" * 5000, b"\xff" * 5000, b"{" * 5000, b"not an entry at all"])
def test_what_is_no_entry_or_has_more_behind_it_is_damaged(path: Path, data: bytes) -> None:
    for damaged in (data, path.read_bytes() + data):
        path.write_bytes(damaged)
        for read in (lambda: read_entry(path, key_of(), VIDEO), lambda: read_facts(path)):
            with pytest.raises(DamagedEntryError):
                read()


def test_an_entry_of_another_video_is_not_given(path: Path) -> None:
    with pytest.raises(DamagedEntryError, match="of another video"):
        read_entry(path, key_of(1), VIDEO)


def test_another_version_of_the_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(entry, "FORMAT_VERSION", 2)
        write(tmp_path / "entry", key_of(), seen_of())
    with pytest.raises(DamagedEntryError, match="format is 2, not 1"):
        read_facts(tmp_path / "entry")


@pytest.mark.parametrize("shape", [(3, 2, 2, 8), (2, 2, 8), (2, 2, 2, 9)])
def test_facts_of_another_form_than_the_tokens_are_noticed_though_the_checksums_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    to_json = entry.EntryFacts.to_json
    monkeypatch.setattr(entry.EntryFacts, "to_json", lambda facts: to_json(replace(facts, shape=shape)))
    write(tmp_path / "entry", key_of(), seen_of())
    for read in (lambda: read_entry(tmp_path / "entry", key_of(), VIDEO), lambda: read_facts(tmp_path / "entry")):
        with pytest.raises(DamagedEntryError):
            read()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"video": {}}', json.dumps({"video": {"path": 1}})])
def test_facts_that_are_none_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(entry.EntryFacts, "to_json", lambda _: text)
    write(tmp_path / "entry", key_of(), seen_of())
    with pytest.raises(DamagedEntryError):
        read_facts(tmp_path / "entry")


def test_somebody_elses_safetensors_file_is_damage(tmp_path: Path) -> None:
    save_file({"visual_tokens": seen_of().visual_tokens}, tmp_path / "entry")
    with pytest.raises(DamagedEntryError):
        read_facts(tmp_path / "entry")


def test_tokens_in_another_dtype_than_the_key_says_are_not_taken() -> None:
    with pytest.raises(ValueError, match="float16 cannot be kept as bfloat16"):
        entry_bytes(key_of(dtype="bfloat16"), seen_of(dtype="float16"))
