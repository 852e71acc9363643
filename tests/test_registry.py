"""The registry reads models.toml strictly, finds names whatever their case, and suggests near ones on a miss."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sfvqa.errors import ExitCode, ModelError, UnknownModelError
from sfvqa.registry import find_model, load_registry, read_registry
from sfvqa.video.sampling import SamplingStrategy

ENTRY = """
[models.small]
description = "d"
can_answer = "c"
folder = "assets/small"
license = "Apache-2.0"
size_bytes = 10
num_frames = 8
"""


def test_the_shipped_registry_names_the_bundled_model_and_the_two_published_ones() -> None:
    tiny, b64, b96 = load_registry()
    assert (tiny.name, tiny.is_bundled, tiny.repo_id) == ("tiny", True, None)
    assert b64.repo_id == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame64-s1t4"
    assert b96.repo_id == "shi-labs/slowfast-video-mllm-qwen2-7b-convnext-576-frame96-s1t6"
    assert [b64.num_frames, b96.num_frames] == [64, 96]
    for published in (b64, b96):
        assert not published.is_bundled
        assert published.license == "CC BY-NC 4.0"
        assert published.size_bytes == 8_500_648_304 * 2  # bf16


def test_every_sampling_strategy_in_the_file_exists() -> None:
    assert all(SamplingStrategy(spec.sampling) for spec in load_registry())


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
    with pytest.raises(UnknownModelError, match="Known models: tiny, slowfast-7b-64f, slowfast-7b-96f"):
        find_model("zzzzzzzz")


def test_a_minimal_entry_reads() -> None:
    (spec,) = read_registry(ENTRY)
    assert (spec.name, spec.sampling, spec.revision, spec.aliases) == ("small", "uniform", None, ())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ENTRY + 'licence = "MIT"', r"models\.small.*unknown key `licence`.*Did you mean `license`\?"),
        ("modells = 1\n" + ENTRY, r"unknown key `modells`.*Did you mean `models`\?"),
        (ENTRY.replace("num_frames = 8", ""), "'small'.*lacks num_frames"),
        (ENTRY.replace("num_frames = 8", 'num_frames = "8"'), "gives '8' for `num_frames`.*type int"),
        (ENTRY.replace("num_frames = 8", "num_frames = true"), "gives True for `num_frames`"),
        (ENTRY.replace("num_frames = 8", "num_frames = 0"), "below 1"),
        (ENTRY + "aliases = [1]", "gives .* for `aliases`.*list of strings"),
        (ENTRY + 'repo_id = "a/b"', "either `repo_id` or `folder`"),
        (ENTRY.replace('folder = "assets/small"', ""), "either `repo_id` or `folder`"),
        (ENTRY + ENTRY.replace("small]", 'other]\naliases = ["SMALL"]'), "'other'.*shares the name 'SMALL' with small"),
        ("models = 3", "something else than tables"),
        ("models = [", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        read_registry(text)


def test_the_file_at_the_top_is_what_a_wheel_carries() -> None:
    """A wheel carries models.toml as sfvqa/models.toml; from a checkout the file at the top is read."""
    top = Path(__file__).parent.parent
    build = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {"models.toml": "sfvqa/models.toml"}
    assert read_registry((top / "models.toml").read_text()) == load_registry()


def test_the_registry_of_an_installed_package_is_read_from_inside_it(tmp_path: Path) -> None:
    package = tmp_path / "sfvqa"
    package.mkdir()
    source = Path(__file__).parent.parent / "sfvqa"
    for name in ("registry.py", "errors.py"):
        (package / name).write_text((source / name).read_text())
    (package / "__init__.py").touch()
    (package / "models.toml").write_text(ENTRY)
    printed = subprocess.run(
        [sys.executable, "-c", "from sfvqa.registry import load_registry; print(*[m.name for m in load_registry()])"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.split() == ["small"]


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import sys, sfvqa.registry; print({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_case_does_not_matter_on_either_side() -> None:
    registry = read_registry(ENTRY.replace("small]", 'Small]\naliases = ["Other-Name"]'))
    assert registry.find("SMALL") is registry.find("other-name") is registry.find("Small")
