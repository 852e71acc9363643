"""The registry reads models.toml strictly, finds names whatever their case, and suggests near ones on a miss."""

import re
import shutil
import subprocess
import sys
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import get_args

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not marked so

from sfvqa.errors import ExitCode, ModelError, UnknownModelError
from sfvqa.model.config import Gating, SlowAttentionScope
from sfvqa.model.families import FAMILY_NAMES
from sfvqa.registry import (
    SUGGESTED_SPEECH_MODEL,
    CropName,
    SamplingName,
    find_model,
    load_registry,
    read_registry,
)
from sfvqa.registry.architecture import GATINGS, SLOW_ATTENTION_SCOPES, FamilyName
from sfvqa.video import CropMode, SamplingStrategy

TOP = Path(__file__).parent.parent.parent
ARCHITECTURE = """
[architectures.little]
image_size = 32
vision_depths = [1, 1]
vision_dims = [8, 16]
video_pooling_stride = 2
hidden_size = 32
intermediate_size = 64
num_layers = 4
num_attention_heads = 4
num_key_value_heads = 2
vocab_size = 272
max_position_embeddings = 640
rope_theta = 1e4
tie_word_embeddings = true
hybrid_layers = [0, 2]
"""
MODEL = """
[models.small]
description = "d"
can_answer = "c"
architecture = "little"
fast_tokens = { temporal_stride = 2, min_fast_frames = 2 }
folder = "assets/small"
license = "Apache-2.0"
size_bytes = 10
num_frames = 8
training_max_length = 64
memory_hint = "m"
"""
ENTRY = ARCHITECTURE + MODEL
PULLED = ENTRY.replace('folder = "assets/small"', 'repo_id = "acme/small"')


def test_the_shipped_registry_names_the_bundled_model_published_ones_best_first_and_some_to_measure_with() -> None:
    tiny, b64, b96, b128, *others = load_registry()
    to_measure_with = others[-3:]
    assert [bench.name for bench in to_measure_with] == ["bench-0.5b", "bench-llava-0.5b", "bench-smolvlm2-500m"]
    assert not any(bench.has_weights for bench in to_measure_with)
    counts = [bench.architecture.num_parameters for bench in to_measure_with]
    assert [round(count / 1e9, 2) for count in counts] == [0.52, 0.89, 0.51]
    assert (tiny.name, tiny.is_bundled, tiny.repo_id) == ("tiny", True, None)
    assert b64.repo_id == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame64-s1t4"
    assert b96.repo_id == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame96-s1t6"
    assert b128.repo_id == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame128-s2t4"
    assert [b64.num_frames, b96.num_frames, b128.num_frames] == [64, 96, 128]
    for published in (b64, b96, b128):
        assert not published.is_bundled
        assert published.license == "CC BY-NC 4.0"
        assert published.size_bytes == 8_500_648_304 * 2  # bf16
    open_models = {spec.name: (spec.num_frames, spec.sampling, spec.crop, spec.license) for spec in others[:-3]}
    by_seconds, evenly = (64, "smolvlm", "squash", "Apache-2.0"), (32, "uniform", "squash", "Apache-2.0")
    assert list(open_models.items()) == [
        ("llava-onevision-7b", evenly),
        ("smolvlm2-2.2b", by_seconds),
        ("llava-onevision-0.5b", evenly),
        ("smolvlm2-500m", by_seconds),
        ("smolvlm2-256m", by_seconds),
    ]


@pytest.mark.parametrize("name", ["slowfast-7b-64f", "slowfast-7b-96f", "slowfast-7b-128f"])
def test_the_strides_are_those_in_the_published_name_and_leave_16_fast_frames(name: str) -> None:
    """`s` is the stride at which the authors sample frames, `t` the number that they average."""
    spec = find_model(name)
    fast, stated = spec.fast_tokens, re.fullmatch(r".*-frame(\d+)-s(\d+)t(\d+)", spec.repo_id or "")
    assert stated is not None
    assert [*map(int, stated.groups())] == [spec.num_frames, fast.temporal_sampling_stride, fast.temporal_stride]
    assert fast.num_averages(spec.num_frames) == 16


def test_an_only_frame_has_all_of_its_tokens() -> None:
    """They are pooled where there are more, as in the reference."""
    counts = (1, 2, 64)
    published, tiny = (find_model(name).architecture for name in ("slowfast-7b-64f", "tiny"))
    assert [published.num_visual_tokens(count) for count in counts] == [324, 162, 5184]
    assert [tiny.num_visual_tokens(count) for count in counts] == [64, 32, 1024]


def test_families_written_out_are_those_of_the_network() -> None:
    assert get_args(FamilyName) == FAMILY_NAMES


@pytest.mark.parametrize(
    ("written_out", "enum"),
    [
        (get_args(SamplingName), SamplingStrategy),
        (get_args(CropName), CropMode),
        (SLOW_ATTENTION_SCOPES, SlowAttentionScope),
        (GATINGS, Gating),
    ],
)
def test_names_written_out_are_those_of_the_enums(written_out: tuple[str, ...], enum: type[StrEnum]) -> None:
    """They are written out so that the registry imports nothing heavy; they must not drift apart."""
    assert list(written_out) == list(enum), f"write out those of {enum.__name__} in sfvqa/registry/, in its order"


@pytest.mark.parametrize(
    "repo_id", ["a/b", "gpt2", "a.b/c-d_e", "", "a/b/c", "../..", "/a", "a/", "a b/c", "-a/b", "a--b", "a/b.git", "é/b"]
)
def test_a_repository_s_name_is_refused_where_huggingface_hub_would_raise(repo_id: str) -> None:
    """Its ValueError came out of `models list`, `doctor` and any `ask` as an error inside sfvqa."""
    entry = ENTRY.replace('folder = "assets/small"', f'repo_id = "{repo_id}"')
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        with pytest.raises(ModelError, match=r"'small' in models\.toml has an invalid `repo_id`"):
            read_registry(entry)
    else:
        assert read_registry(entry).find("small").repo_id == repo_id


@pytest.mark.parametrize(
    "name", ["slowfast-7b-96f", "7B-96F", "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame96-s1t6"]
)
def test_a_model_is_found_by_name_alias_and_repository(name: str) -> None:
    assert find_model(name).name == "slowfast-7b-96f"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match=r"'tinny'.*Did you mean tiny\?") as caught:
        find_model("tinny")
    assert caught.value.exit_code == ExitCode.MODEL


def test_a_name_like_none_is_answered_with_all_names() -> None:
    with pytest.raises(
        UnknownModelError, match=r"Known models: tiny, slowfast-7b-64f, slowfast-7b-96f, .*smolvlm2-256m"
    ):
        find_model("zzzzzzzz")


def test_a_minimal_entry_reads() -> None:
    (spec,) = read_registry(ENTRY.replace("training_max_length = 64", ""))
    assert (spec.name, spec.sampling, spec.revision, spec.aliases) == ("small", "uniform", None, ())
    assert spec.training_max_length is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ENTRY + 'licence = "MIT"', r"models\.small.*unknown key `licence`.*Did you mean `license`\?"),
        ("modells = 1\n" + ENTRY, r"unknown key `modells`.*Did you mean `models`\?"),
        (ENTRY.replace("num_frames = 8", ""), r"models\.small.*lacks num_frames"),
        (ENTRY.replace("num_frames = 8", 'num_frames = "8"'), "gives '8' for `num_frames`.*a whole number"),
        (ENTRY.replace("num_frames = 8", "num_frames = true"), "gives True for `num_frames`"),
        (ENTRY.replace("num_frames = 8", "num_frames = 0"), "below 1"),
        (ENTRY + "aliases = [1]", "gives .* for `aliases`.*list, each a string"),
        (ENTRY + 'quantization = "5bit"', "gives '5bit' for `quantization`.*auto, none, 8bit, 4bit"),
        (ENTRY + 'repo_id = "a/b"', "both `repo_id` and `folder`"),
        (ENTRY + MODEL.replace("small]", 'other]\naliases = ["SMALL"]'), "'other'.*shares the name 'SMALL' with small"),
        (ENTRY + 'name = "else"', "unknown key `name`"),
        (MODEL, "architecture 'little' that is not described.*Known architectures: none"),
        (ENTRY.replace('architecture = "little"', ""), "does not name its architecture"),
        (ENTRY.replace("min_fast_frames = 2", "min_frames = 2"), "fast_tokens.*unknown key `min_frames`"),
        (ENTRY.replace("{ temporal_stride = 2, min_fast_frames = 2 }", "2"), "`fast_tokens`.* not a table"),
        (ENTRY.replace("vision_dims = [8, 16]", "vision_dims = [8]"), r"architectures\.little.*do not pair"),
        (ENTRY.replace("vision_dims = [8, 16]", "vision_dims = 8"), "gives 8 for `vision_dims`.*list"),
        (ENTRY.replace("hybrid_layers = [0, 2]", "hybrid_layers = [4]"), r"architectures\.little.*outside 4 layers"),
        (ENTRY.replace("num_key_value_heads = 2", "num_key_value_heads = 3"), "do not divide"),
        (ENTRY.replace("image_size = 32", "image_size = 36"), "no multiple of 8"),
        (
            ENTRY.replace("video_pooling_stride = 2", "video_pooling_stride = 0"),
            "little.*video_pooling_stride 0 is not",
        ),
        (ENTRY.replace("video_pooling_stride = 2", "video_pooling_stride = 5"), "little.*leaves no token of a frame"),
        (ENTRY.replace("vision_depths = [1, 1]", "vision_depths = [1, -1]"), "little.*vision_depths .*is not above 0"),
        (ARCHITECTURE + 'gating = "open"' + MODEL, "little.*gating 'open' does not exist"),
        (
            ENTRY.replace("temporal_stride = 2", "temporal_stride = 0"),
            "small.*`temporal_stride` of the fast tokens is 0",
        ),
        (ENTRY.replace("min_fast_frames = 2", "min_fast_frames = 2, spatial_stride = 3"), "3 cells.* has 2 a side"),
        (ENTRY.replace("training_max_length = 64", "training_max_length = 0"), "'small'.*length below 1"),
        (ENTRY + 'sampling = "all"', "gives 'all' for `sampling`.*uniform, fps"),
        (ENTRY + 'crop = "none"', "gives 'none' for `crop`.*center, pad, squash"),
        (ENTRY.replace("models.small", 'models.""'), "has an empty name"),
        ("models = 3", "gives 3 for `models`"),
        ("[models]\nsmall = 3", "does not name its architecture"),
        ("models = [", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        read_registry(text)


def test_the_file_at_the_top_is_what_a_wheel_carries() -> None:
    """A wheel carries models.toml as sfvqa/models.toml; from a checkout the file at the top is read."""
    build = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"models.toml": "sfvqa/models.toml"}
    assert read_registry((TOP / "models.toml").read_text()) == load_registry()


def test_the_registry_of_an_installed_package_is_read_from_inside_it(tmp_path: Path) -> None:
    package = tmp_path / "sfvqa"
    source = TOP / "sfvqa"
    shutil.copytree(source / "registry", package / "registry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "errors.py", package)
    (package / "__init__.py").touch()
    (package / "models.toml").write_text(ENTRY)
    printed = subprocess.run(
        [sys.executable, "-c", "from sfvqa.registry import load_registry; print(*[m.name for m in load_registry()])"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.split() == ["small"]


class TestUserFile:
    @pytest.fixture
    def user_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "models.toml"
        monkeypatch.setenv("SFVQA_MODELS", str(path))
        return path

    def test_its_models_come_after_the_shipped_ones(self, user_file: Path) -> None:
        user_file.write_text(PULLED)
        assert [spec.name for spec in load_registry()][-1] == "small"
        assert find_model("small").source == str(user_file)

    def test_it_may_name_a_shipped_architecture(self, user_file: Path) -> None:
        user_file.write_text(PULLED.replace('"little"', '"slowfast-7b"'))
        assert find_model("small").architecture == find_model("slowfast-7b-64f").architecture

    def test_a_folder_inside_the_package_is_not_for_it(self, user_file: Path) -> None:
        """It was looked for below the package, and one that was not there broke `models list`."""
        user_file.write_text(ENTRY)
        with pytest.raises(ModelError, match=r"'small'.*has a `folder`"):
            load_registry()

    def test_a_name_that_is_taken_names_both_files(self, user_file: Path) -> None:
        user_file.write_text(PULLED.replace("models.small", "models.tiny"))
        with pytest.raises(ModelError, match=f"'tiny' in {user_file} shares the name 'tiny' with tiny of models.toml"):
            load_registry()

    @pytest.mark.parametrize(
        ("text", "complaint"), [("models = [", "not valid TOML"), (MODEL.replace("little", "x"), "tiny, slowfast-7b")]
    )
    def test_what_is_wrong_with_it_names_it(self, user_file: Path, text: str, complaint: str) -> None:
        user_file.write_text(text)
        with pytest.raises(ModelError, match=complaint) as caught:
            load_registry()
        assert str(user_file) in caught.value.message

    def test_one_that_is_no_text_is_an_error(self, user_file: Path) -> None:
        user_file.write_bytes(b"\xff\xfe")
        with pytest.raises(ModelError, match="cannot be read"):
            load_registry()


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import sys, sfvqa.registry; print({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_case_does_not_matter_on_either_side() -> None:
    registry = read_registry(ENTRY.replace("small]", 'Small]\naliases = ["Other-Name"]'))
    assert registry.find("SMALL") is registry.find("other-name") is registry.find("Small")


SPEECH = """
[speech.hears]
description = "d"
repo_id = "acme/hears"
license = "MIT"
size_bytes = 10
aliases = ["ears"]
"""


def test_the_shipped_speech_models_are_of_one_publisher_and_the_suggested_one_is_among_them() -> None:
    speech = load_registry().speech
    assert [spec.name for spec in speech] == [
        f"whisper-{size}" for size in ("large-v3", "medium", "small", "base", "tiny", "small.en", "base.en", "tiny.en")
    ]
    for spec in speech:
        assert spec.repo_id == f"Systran/faster-{spec.name}"
        assert spec.license == "MIT"
    assert SUGGESTED_SPEECH_MODEL in {spec.name for spec in speech}


def test_a_speech_model_is_found_among_its_kind_only() -> None:
    registry = read_registry(ENTRY + SPEECH)
    assert registry.find_speech("EARS").name == registry.find_any("acme/hears").name == "hears"
    assert registry.find_any("small").name == "small"
    assert [spec.name for spec in registry] == ["small"], "it is never asked"
    with pytest.raises(UnknownModelError, match="hears is a speech model"):
        registry.find("hears")
    with pytest.raises(UnknownModelError, match="small answers questions"):
        registry.find_speech("small")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('repo_id = "acme/hears"', ""), "has no `repo_id`"),
        (('license = "MIT"', ""), "lacks license"),
        (('"acme/hears"', '"not a name"'), "invalid `repo_id`"),
        (("size_bytes = 10", "size_bytes = 0"), "size below 1"),
        (("size_bytes = 10", "size_bytes = 10\nnum_frames = 8"), "unknown key `num_frames`"),
        (('"ears"', '"small"'), "shares the name 'small'"),
    ],
)
def test_a_broken_speech_model_is_named(change: tuple[str, str], words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)):
        read_registry(ENTRY + SPEECH.replace(*change))
