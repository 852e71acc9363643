"""Checkpoint folders in both formats load exactly or are refused by name."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sfvqa.errors import CheckpointError
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration, read_config
from sfvqa.model.families.slowfast import FAMILY, SlowFastVisionConfig
from sfvqa.model.loading import ModelBuilder
from tests.golden_folder import GOLDEN
from tests.model.conftest import ModelMaker


@pytest.fixture
def reference_folder(tmp_path: Path) -> Path:
    """A checkpoint in the reference's format that the test may damage."""
    folder = tmp_path / "reference"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    return folder


@pytest.fixture
def own_folder(tmp_path: Path, make_model: ModelMaker) -> Path:
    """A checkpoint in our own format that the test may damage."""
    make_model().save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def change_tensors(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def same_weights(left: SlowFastForConditionalGeneration, right: SlowFastForConditionalGeneration) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_tensor_of_the_reference_arrives_unchanged(reference_folder: Path) -> None:
    model = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    state = model.state_dict()
    published = {FAMILY.rename_tensor(name): tensor for name, tensor in load_file(GOLDEN / "model.safetensors").items()}
    assert set(published) - set(state) == {name for name in published if name.startswith("vision_tower.head.")}
    assert all(torch.equal(state[name], published[name]) for name in state)


@pytest.mark.parametrize("layer_scale", ["weight", "gamma"])
@pytest.mark.parametrize("num_files", [1, 3])
def test_layer_scales_of_either_name_in_any_number_of_files_load_the_same(
    reference_folder: Path, layer_scale: str, num_files: int
) -> None:
    """transformers renames `gamma` only in names it knows: a published `weight` once stayed uninitialised."""
    as_published = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    published = load_file(reference_folder / "model.safetensors")
    tensors = {
        name.removesuffix("weight") + layer_scale if name.split(".")[-3:-2] == ["blocks"] else name: tensor
        for name, tensor in published.items()
    }
    assert (tensors.keys() == published.keys()) == (layer_scale == "weight")
    (reference_folder / "model.safetensors").unlink()
    write_files(reference_folder, tensors, num_files)
    assert same_weights(SlowFastForConditionalGeneration.from_pretrained(reference_folder), as_published)


def write_files(folder: Path, tensors: dict[str, torch.Tensor], num_files: int) -> None:
    if num_files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = {name: f"model-{number % num_files}.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        own = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        save_file(own, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loading_equals_the_loader_of_transformers(own_folder: Path, dtype: torch.dtype) -> None:
    """Ours takes less memory; what it gives must be the same, buffers too, which no file holds."""
    theirs = PreTrainedModel.from_pretrained.__func__(  # type: ignore[attr-defined]
        SlowFastForConditionalGeneration, own_folder, dtype=dtype, config=read_config(own_folder)
    )
    ours = SlowFastForConditionalGeneration.from_pretrained(own_folder, dtype=dtype)
    assert same_weights(ours, theirs)
    for (name, buffer), (_, other) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
        assert buffer.dtype is other.dtype


def test_an_unknown_keyword_is_refused(own_folder: Path) -> None:
    with pytest.raises(TypeError, match="dytpe"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder, dytpe="float32")


def test_tied_weights_that_differ_are_refused(own_folder: Path) -> None:
    """One of them would be dropped without a word."""
    edit_config(own_folder, {"tie_word_embeddings": True, "text_config.tie_word_embeddings": True})
    with pytest.raises(CheckpointError, match=r"ties lm_head\.weight"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_what_was_loaded_from_the_reference_saves_in_our_format(reference_folder: Path, tmp_path: Path) -> None:
    """transformers would write the reference's names beside our config, a folder that then could not be loaded."""
    model = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == model.state_dict().keys()
    assert same_weights(SlowFastForConditionalGeneration.from_pretrained(tmp_path / "again"), model)


def test_a_sharded_checkpoint_loads_the_same(own_folder: Path, tmp_path: Path) -> None:
    model = SlowFastForConditionalGeneration.from_pretrained(own_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20kB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert same_weights(SlowFastForConditionalGeneration.from_pretrained(tmp_path / "sharded"), model)


def test_the_auto_classes_know_our_format(own_folder: Path) -> None:
    assert AutoConfig.from_pretrained(own_folder).model_type == "slow_fast"
    model = AutoModelForImageTextToText.from_pretrained(own_folder)
    assert isinstance(model, SlowFastForConditionalGeneration)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_asked_for_reaches_the_decoder(own_folder: Path, implementation: str) -> None:
    """Only the outer config got it once, and the decoder stayed on sdpa."""
    model = SlowFastForConditionalGeneration.from_pretrained(own_folder, attn_implementation=implementation)
    assert model.config.decoder_config._attn_implementation == implementation


@pytest.mark.parametrize("fixture", ["reference_folder", "own_folder"])
def test_a_missing_tensor_is_named(fixture: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(fixture)
    name = next(name for name in load_file(folder / "model.safetensors") if name.endswith("q_proj.weight"))
    change_tensors(folder, {name: None})
    with pytest.raises(CheckpointError, match=r"missing: language_model\.layers\.\d\.self_attn\.q_proj\.weight"):
        SlowFastForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("fixture", ["reference_folder", "own_folder"])
def test_a_misfit_is_told_once(fixture: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers logged a table of its own beside our sentence."""
    transformers_logging.set_verbosity_warning()
    folder = request.getfixturevalue(fixture)
    name = next(name for name in load_file(folder / "model.safetensors") if name.endswith("q_proj.weight"))
    change_tensors(folder, {name: None})
    with pytest.raises(CheckpointError):
        SlowFastForConditionalGeneration.from_pretrained(folder)
    assert "MISSING" not in "".join(capfd.readouterr())
    assert transformers_logging.get_verbosity() == logging.WARNING


@pytest.mark.parametrize("fixture", ["reference_folder", "own_folder"])
def test_an_unexpected_tensor_is_named(fixture: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(fixture)
    change_tensors(folder, {"model.surprise.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"unexpected: .*surprise\.weight"):
        SlowFastForConditionalGeneration.from_pretrained(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(own_folder: Path) -> None:
    change_tensors(own_folder, {"projector.fc1.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"projector\.fc1\.bias is \[3\], not \[32\]"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_torn_tensor_file_is_named(own_folder: Path) -> None:
    path = own_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is corrupt"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_missing_shard_is_named(own_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    SlowFastForConditionalGeneration.from_pretrained(own_folder).save_pretrained(folder, max_shard_size="20kB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        SlowFastForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("name", [5, ["x"], "", "../elsewhere.safetensors", "/etc/passwd", "D:a.safetensors"])
def test_an_index_names_files_beside_it_and_nothing_else(own_folder: Path, name: object) -> None:
    """A path in it was opened wherever it led."""
    (own_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="does not say which file holds which tensor"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_tensor_that_two_files_hold_is_named(own_folder: Path) -> None:
    """Whichever came last was taken, silently."""
    tensors = load_file(own_folder / "model.safetensors")
    name = min(tensors)
    save_file({name: tensors[name] + 1}, own_folder / "more.safetensors")
    weight_map = {name: "more.safetensors", max(tensors): "model.safetensors"}
    (own_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=f"{name} is in .* and in another tensor file"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_tensor_of_whole_numbers_is_named(own_folder: Path) -> None:
    """It was an error of torch's about gradients."""
    path = own_folder / "model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    save_file(tensors | {name: tensors[name].to(torch.int32)}, path)
    with pytest.raises(CheckpointError, match=f"{name} holds int32"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_generation_config_that_is_no_object_is_named(own_folder: Path) -> None:
    (own_folder / "generation_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"generation_config\.json cannot be read"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_a_folder_without_weights_or_config(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        SlowFastForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}'])
def test_a_config_of_something_else_is_refused(own_folder: Path, text: str) -> None:
    (own_folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def edit_config(folder: Path, changes: dict[str, object]) -> None:
    """Set fields of config.json, `part.field` inside a part."""
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    for name, value in changes.items():
        part, _, inner = name.partition(".")
        if inner:
            fields[part][inner] = value
        else:
            fields[part] = value
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("temporal_stride", "x", "temporal_stride"),
        ("temporal_stride", 2.5, "temporal_stride"),
        ("temporal_stride", None, "temporal_stride"),
        ("hybrid_layers", 3, "hybrid_layers"),
        ("hybrid_layers", [0.5], "hybrid_layers"),
        ("vision_config", 5, "vision_config"),
        ("text_config", [], "text_config"),
        ("vision_config.depths", "ab", "depths"),
        ("vision_config.image_size", "big", "image_size"),
        ("vision_config.image_mean", ["a", "b", "c"], "image_mean"),
        ("text_config.num_hidden_layers", 6, "num_hidden_layers"),
        ("text_config.num_attention_heads", 0, "cannot be built"),
        ("text_config.vocab_size", -3, "cannot be built"),
        ("text_config.hidden_act", "swoosh", "swoosh"),
        ("dtype", "float99", "float99"),
        ("temporal_stried", 4, r"temporal_stried.*Did you mean temporal_stride\?"),
        ("vision_config.depth", [1, 1], r"Did you mean depths\?"),
    ],
)
def test_a_wrong_value_in_the_config_names_the_file(own_folder: Path, name: str, value: object, says: str) -> None:
    """Most of these were a TypeError from somewhere inside, 2.5 was taken, and a misspelt field kept its default."""
    edit_config(own_folder, {name: value})
    with pytest.raises(CheckpointError, match=rf"(?s)(?=.*config\.json)(?=.*{says})"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


def test_what_transformers_writes_into_a_config_is_no_unknown_field(own_folder: Path) -> None:
    """Who wrote it, and how weights were stored, say nothing about the mathematics."""
    before = SlowFastForConditionalGeneration.from_pretrained(own_folder)
    written = {"transformers_version": "9.9", "torch_dtype": "float32", "_name_or_path": "x", "architectures": ["A"]}
    edit_config(own_folder, dict(written))
    assert same_weights(SlowFastForConditionalGeneration.from_pretrained(own_folder), before)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_config_without_a_part_is_refused(own_folder: Path, part: str) -> None:
    """transformers filled in a 7B decoder, which took 23 GB before anything was said."""
    path = own_folder / "config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != part}))
    with pytest.raises(CheckpointError, match=rf"{part}.*config\.json"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder)


@pytest.mark.parametrize("fixture", ["reference_folder", "own_folder"])
def test_a_misfit_is_told_before_memory_is_taken(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config of a model far larger than the tensors beside it must not build that model."""
    folder = request.getfixturevalue(fixture)
    size = {"vocab_size": 2_000_000, "hidden_size": 16_384, "intermediate_size": 65_536}
    edit_config(
        folder, dict(size) if fixture == "reference_folder" else {f"text_config.{k}": v for k, v in size.items()}
    )
    monkeypatch.setattr(ModelBuilder, "put", None)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is \[\d+, \d+\], not \[2000000, 16384\]"):
        SlowFastForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mm_projector_type", "linear"),
        ("mm_patch_merge_type", "spatial_nopad"),
        ("cross_attn_gating_type", "channel-wise"),
        ("cross_attn_implementation", "vanilla"),
        ("fast_token_temporal_stride", None),
        ("hidden_size", None),
    ],
)
def test_reference_fields_that_change_the_maths_are_read_strictly(
    reference_folder: Path, field: str, value: str | None
) -> None:
    path = reference_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=field):
        SlowFastForConditionalGeneration.from_pretrained(reference_folder)


@pytest.mark.parametrize("merge_type", ["flat", "spatial", "spatial_unpad", None])
def test_how_tiles_of_pictures_would_be_laid_out_changes_nothing(
    reference_folder: Path, merge_type: str | None
) -> None:
    """LLaVA's field was refused but for `flat`; the reference reads it only to add a tensor that it never uses."""
    before = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    edit_config(reference_folder, {"mm_patch_merge_type": merge_type})
    change_tensors(reference_folder, {"model.image_newline": torch.ones(64)} if merge_type == "spatial_unpad" else {})
    after = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    assert same_weights(after, before)
    assert after.config.to_dict() == before.config.to_dict()


class TestTowerByPath:
    """What a checkpoint names as its tower may be where it lay in training."""

    @pytest.fixture
    def naming(self, reference_folder: Path) -> Callable[[str], SlowFastConfig]:
        path = reference_folder / "config.json"
        fields = json.loads(path.read_text())
        del fields["_tiny_vision"], fields["mm_hidden_size"]

        def naming(tower: str) -> SlowFastConfig:
            path.write_text(json.dumps(fields | {"mm_vision_tower": tower}))
            return read_config(reference_folder)

        return naming

    @pytest.mark.parametrize("tower", ["/data/towers/convnext-576", "towers/convnext-576/", r"D:\towers\convnext-576"])
    def test_a_path_that_ends_with_a_name_is_that_tower(
        self, naming: Callable[[str], SlowFastConfig], tower: str
    ) -> None:
        assert naming(tower).vision.to_dict() == naming("convnext-576").vision.to_dict()

    @pytest.mark.parametrize("is_relative", [False, True])
    def test_a_folder_may_say_what_is_in_it(
        self, naming: Callable[[str], SlowFastConfig], reference_folder: Path, is_relative: bool
    ) -> None:
        own = SlowFastVisionConfig(image_size=192, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), layer_norm_eps=1e-5)
        own.save_pretrained(reference_folder / "my-tower")
        naming("my-tower" if is_relative else str(reference_folder / "my-tower"))
        model = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
        assert tuple(model.config.vision.dims) == own.dims

    @pytest.mark.parametrize("tower", ["/data/siglip-so400m", "convnext_xxlarge.clip_laion2b_soup", "a-siglip"])
    def test_any_other_is_refused_by_its_name(
        self, naming: Callable[[str], SlowFastConfig], reference_folder: Path, tower: str
    ) -> None:
        (reference_folder / "a-siglip").mkdir()
        (reference_folder / "a-siglip" / "config.json").write_text('{"model_type": "siglip_vision_model"}')
        with pytest.raises(CheckpointError, match=f"mm_vision_tower is '{tower}'.*convnext-576, or the path") as caught:
            naming(tower)
        assert ("'siglip_vision_model'" in caught.value.message) == (tower == "a-siglip")


def test_reference_fields_that_nothing_reads_do_not_matter(reference_folder: Path) -> None:
    path = reference_folder / "config.json"
    before = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    unread = {"cross_attn_use_mlp": True, "tile_image_input": True, "mm_vision_select_layer": -7, "new_field": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | unread))
    after = SlowFastForConditionalGeneration.from_pretrained(reference_folder)
    assert same_weights(after, before)
    assert after.config.to_dict() == before.config.to_dict()
