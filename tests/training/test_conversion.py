"""A converted model is the plain decoder until its gates open, and looks at slow tokens with the decoder's own eyes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import sfvqa
from sfvqa.errors import CheckpointError, SfvqaError, UsageError
from sfvqa.inference import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastForConditionalGeneration
from sfvqa.model.families.slowfast import SlowFastVisionConfig
from sfvqa.training.convert import ConversionOptions, SlowInit, VisionSource, convert, main
from tests.model.decoders import DECODERS
from tests.model.families.published import save_whole
from tests.training.plain_decoder import save_plain_decoder
from tests.windows import needs_modes

TOWER = VisionSource(SlowFastVisionConfig(image_size=32, depths=(1, 1), dims=(8, 16)))
OPTIONS = ConversionOptions(hybrid_layers=(0, 2), temporal_stride=2, min_fast_frames=2)
LLAMA = DECODERS["llama"]
DEMO_VIDEO = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
EVERY_DECODER = pytest.mark.parametrize("fields", DECODERS.values(), ids=list(DECODERS))


def converted(folder: Path, fields: dict[str, Any], options: ConversionOptions = OPTIONS, **saving: Any) -> Path:
    """The checkpoint folder of a random decoder of a family."""
    convert(save_plain_decoder(folder / "plain", fields, **saving), TOWER, folder / "slow-fast", options)
    return folder / "slow-fast"


def load(folder: Path, attention: str = "sdpa") -> SlowFastForConditionalGeneration:
    return SlowFastForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)


def frames(num_frames: int) -> Tensor:
    return torch.randn(num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@EVERY_DECODER
def test_its_logits_are_exactly_the_plain_decoders(fields: dict[str, Any], attention: str, tmp_path: Path) -> None:
    folder = converted(tmp_path, fields)
    ours = load(folder, attention)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32, attn_implementation=attention)
    text = torch.randint(0, 700, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(text).logits, plain(text, use_cache=False).logits)
        sample = ours.encode_video(frames(4))
        ids = torch.tensor([[5, 6, *[IMAGE_TOKEN_ID] * len(sample.fast), 7, 8, 9]])
        with_video = ours(ids, visual_tokens=[sample]).logits
        same = plain(inputs_embeds=ours.embed(ids, [sample]), use_cache=False).logits
        assert torch.equal(with_video, same)
        for layer in (0, 2):  # and no later than that: an open gate must show
            ours.language_model.layers[layer].self_attn.slow_attention.warm_up_gate.fill_(1.0)
        assert not torch.allclose(ours(ids, visual_tokens=[sample]).logits[:, -3:], same[:, -3:], atol=1e-3)
        assert torch.equal(ours(text).logits, plain(text, use_cache=False).logits)


@EVERY_DECODER
def test_slow_keys_and_values_are_the_layers_own_without_rope(fields: dict[str, Any], tmp_path: Path) -> None:
    model = load(converted(tmp_path, fields))
    slow = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(2))
    for layer_idx in (0, 2):
        layer = model.language_model.layers[layer_idx]
        attention, seen = layer.self_attn, layer.input_layernorm(slow)
        keys, values = attention.project_slow(seen)
        heads = (1, 7, -1, attention.head_dim)
        own_keys = attention.k_proj(seen).view(heads)
        own_keys = attention.k_norm(own_keys) if hasattr(attention, "k_norm") else own_keys
        torch.testing.assert_close(keys, own_keys.transpose(1, 2), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(values, attention.v_proj(seen).view(heads).transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_keys_and_values_stacked_whole_are_not_the_layers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the published reference writes: `[k; v]`, read as if interleaved. The test above must notice."""
    monkeypatch.setattr("sfvqa.training.convert.interleave", lambda keys, values, **_: torch.cat([keys, values]))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        test_slow_keys_and_values_are_the_layers_own_without_rope(LLAMA, tmp_path)


def test_a_decoder_in_many_files_and_bfloat16_is_converted_the_same(tmp_path: Path) -> None:
    """The keys and values of a layer may then lie in different files."""
    one = converted(tmp_path / "one", LLAMA)
    many = converted(tmp_path / "many", LLAMA, max_shard_size="5KB")
    assert len(list((tmp_path / "many" / "plain").glob("*.safetensors"))) > 5
    ours, same = load(one).state_dict(), load(many).state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    path = tmp_path / "half"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "one" / "plain").bfloat16()
    save_plain_decoder(path / "plain", LLAMA)
    plain.save_pretrained(path / "plain")
    convert(path / "plain", TOWER, path / "slow-fast", OPTIONS)
    half = SlowFastForConditionalGeneration.from_pretrained(path / "slow-fast")
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


def test_the_hybrid_layers_are_the_papers_unless_chosen(tmp_path: Path) -> None:
    plain = save_plain_decoder(tmp_path / "plain", {**LLAMA, "num_hidden_layers": 18})
    assert convert(plain, TOWER, tmp_path / "out").hybrid_layers == [0, 8, 16]


def test_slow_attention_may_start_from_chance(tmp_path: Path) -> None:
    options = ConversionOptions(hybrid_layers=(1,), slow_init=SlowInit.RANDOM, seed=3)
    models = [load(converted(tmp_path / name, LLAMA, options)) for name in "ab"]
    first, second = (model.language_model.layers[1].self_attn.slow_attention.kv_proj for model in models)
    assert torch.equal(first.weight, second.weight)
    assert 0.015 < float(first.weight.detach().std()) < 0.025
    assert not first.bias.any()


def test_the_tower_of_another_checkpoint_comes_along(tmp_path: Path) -> None:
    plain = save_plain_decoder(tmp_path / "plain", LLAMA)
    convert(plain, VisionSource.of("tiny"), tmp_path / "out", OPTIONS)
    ours, tiny = load(tmp_path / "out").vision_tower, VideoQA.load("tiny").checkpoint.model.vision_tower
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in ours.state_dict().items())
    alone = tmp_path / "tower"
    tiny_config = VisionSource.of("tiny").config
    tiny_config.save_pretrained(alone)
    save_file(dict(tiny.state_dict()) | {"head.fc.weight": torch.zeros(2, 2)}, alone / "model.safetensors")
    found = dict(VisionSource.of(alone).tensors())
    assert found.keys() == tiny.state_dict().keys()
    SlowFastVisionConfig(image_size=64, depths=(2, 3), dims=(32, 96)).save_pretrained(alone)
    with pytest.raises(CheckpointError, match=r"do not fit the model its config\.json describes"):
        list(VisionSource.of(alone).tensors())


@pytest.mark.parametrize(
    "family", ["qwen2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "qwen3", "mistral"))]
)
def test_the_command_writes_what_ask_loads(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = save_plain_decoder(tmp_path / "plain", {**DECODERS[family], "max_position_embeddings": 1024})
    out = tmp_path / "new" / "out"
    assert main([str(plain), "--vision", "tiny", "--out", str(out), "--hybrid-layers", "0,2"]) == 0
    assert capsys.readouterr().out == f"{out}: {family} with hybrid layers 0, 2\n"
    answer = VideoQA.load(out, device="cpu").ask(DEMO_VIDEO, "What moves?")
    assert (answer.tokens.slow, answer.tokens.fast) == (64 * 16, 16 * 16)
    assert not list(out.parent.glob(".out-*"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--vision", "tiny", "--slow-frames", "64"], "--slow-frames has no effect: "),
        (["--vision", "tiny", "--image-size", "32"], "--image-size has no effect: only a tower of --vision random"),
    ],
)
def test_an_option_without_effect_on_a_decoder_is_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = save_plain_decoder(tmp_path / "plain", LLAMA)
    assert main([str(plain), "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_is_not_there_is_said_before_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped folder was taken for a video model, and `--vision` blamed."""
    assert main([str(tmp_path / "plian"), "--vision", "tiny", "--out", str(tmp_path / "out")]) == 4
    assert "--vision" not in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--vision", "tiny"], ["--image-size", "32"], ["--temporal-stride", "2"]])
def test_an_option_without_effect_on_a_video_model_is_refused(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_whole("llava_onevision", tmp_path / "base")
    assert main([str(tmp_path / "base"), "--out", str(tmp_path / "out"), *flags]) == 2
    assert f"{flags[0]} has no effect: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_modes
def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    def refused(match: str, error: type[SfvqaError] = CheckpointError, name: str = "plain", out: str = "out") -> None:
        with pytest.raises(error, match=match):
            convert(tmp_path / name, TOWER, tmp_path / out, OPTIONS)
        assert not list(tmp_path.glob(".out-*"))

    refused(r"There is no config\.json")
    plain = save_plain_decoder(tmp_path / "plain", LLAMA)
    refused("already exists", UsageError, out="plain")
    (tmp_path / "file").touch()
    refused("file cannot be written to", UsageError, out="file/out")
    refused("/proc/a cannot be written to", UsageError, out="/proc/a/out")
    fields = json.loads((plain / "config.json").read_text())

    def write(**changed: object) -> None:
        (plain / "config.json").write_text(json.dumps(fields | changed))

    write(model_type="gpt2")
    refused(r"type 'gpt2', which cannot have hybrid layers\. Supported: llama, mistral")
    write(quantization_config={"quant_method": "gptq"})
    refused("is quantized")
    write(num_attention_heads="four")
    refused(r"config\.json cannot be used")
    write(num_hidden_layers=2)
    refused("hybrid_layers .2. lie outside the decoder's 2 layers")
    write(num_hidden_layers=4)
    refused(r"missing: language_model\.layers\.3\.input_layernorm\.weight")
    write(intermediate_size=40)
    refused(r"is \[32, 48\], not \[32, 40\]")
    write()
    (plain / "tokenizer.json").write_text("{")
    refused("The tokenizer in .* cannot be read")
    (plain / "model.safetensors").unlink()
    refused("There are no weights in")
    assert main([str(plain), "--vision", "random", "--out", str(tmp_path / "out")]) == 4
