"""Where no model is named it is one that is downloaded and small enough, else tiny; and it is said why."""

from pathlib import Path

import pytest

from sfvqa.checkpoints import plan
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.plan import choose_model
from sfvqa.errors import UsageError
from sfvqa.registry import ModelSpec


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """A machine whose downloads and free memory the test sets."""
    state: dict[str, object] = {"downloaded": set(), "free": None}

    def is_downloaded(spec: ModelSpec) -> bool:
        names = state["downloaded"]
        assert isinstance(names, set)
        return spec.is_bundled or spec.name in names

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(plan, "is_downloaded", is_downloaded)
    monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: state["free"])
    return state


def test_a_downloaded_one_that_fits_is_chosen(here: dict[str, object]) -> None:
    here.update(downloaded={"slowfast-7b-96f"}, free=100 * 10**9)
    assert choose_model(device="cpu").model == "slowfast-7b-96f"


@pytest.mark.parametrize(
    ("free_gigabytes", "chosen"),
    [(100, "llava-onevision-7b"), (10, "smolvlm2-2.2b"), (3, "smolvlm2-500m"), (1, "tiny")],
)
def test_of_several_it_is_the_best_that_fits(here: dict[str, object], free_gigabytes: float, chosen: str) -> None:
    """The order in models.toml says which is best."""
    here.update(downloaded={"smolvlm2-500m", "smolvlm2-2.2b", "llava-onevision-7b"}, free=int(free_gigabytes * 1e9))
    choice = choose_model(device="cpu")
    assert choice.model == chosen
    assert len(choice.too_large) == ["llava-onevision-7b", "smolvlm2-2.2b", "smolvlm2-500m", "tiny"].index(chosen)


def test_without_any_it_is_tiny_and_says_so_in_a_line(here: dict[str, object]) -> None:
    here["free"] = 100 * 10**9
    choice = choose_model(device="cpu")
    assert (choice.model, choice.too_large) == ("tiny", ())
    assert "`sfvqa models pull smolvlm2-500m` (2.0 GB, Apache-2.0)" in choice.reason
    assert len(choice.reason) <= 130  # it was 320 once


def test_a_downloaded_model_that_does_not_fit_is_named_with_what_it_needs(here: dict[str, object]) -> None:
    """Not even its smallest quantization fits."""
    here.update(downloaded={"slowfast-7b-64f"}, free=10 * 10**9)
    choice = choose_model(device="cpu")
    assert choice.model == "tiny"
    (said,) = choice.too_large
    assert "slowfast-7b-64f in 4bit with 64 frames needs about" in said
    assert "on cpu, where 10.0 GB are free" in said


def test_a_downloaded_model_that_fits_when_quantized_is_taken(here: dict[str, object]) -> None:
    here.update(downloaded={"slowfast-7b-64f"}, free=20 * 10**9)
    assert choose_model(device="cpu").model == "slowfast-7b-64f"


def test_what_cannot_be_decoded_statically_is_not_chosen_for_it(here: dict[str, object]) -> None:
    """8 bits were, on a GPU that had room for them and not for more, and every item of a batch failed, one by one."""
    here["free"] = 15 * 10**9
    sizes = read_sizes("slowfast-7b-64f")

    def chosen(quantization: str = "auto", *, static_decode: str) -> str:
        settings = ModelSettings(sizes.name, "cpu", "bfloat16", quantization=quantization)
        made = plan.make_plan(settings, sizes, static_decode=static_decode)
        return made.run.quantization

    assert (chosen(static_decode="off"), chosen(static_decode="on")) == ("8bit", "4bit")
    with pytest.raises(UsageError, match="8-bit weights"):
        chosen("8bit", static_decode="on")


def test_where_free_memory_is_unknown_a_downloaded_model_is_tried(here: dict[str, object]) -> None:
    here["downloaded"] = {"slowfast-7b-64f"}
    assert choose_model(device="cpu").model == "slowfast-7b-64f"
