"""The model is the one named, else configured, else downloaded and small enough, else tiny; and it is said why."""

from pathlib import Path

import pytest

from sfvqa.errors import UsageError
from sfvqa.inference import choose, plan
from sfvqa.inference.choose import ChoiceSource, choose_model
from sfvqa.inference.quantized_copies import Provenance
from sfvqa.inference.sizes import read_sizes
from sfvqa.registry import ModelSpec, find_model


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """A machine whose downloads and free memory the test sets."""
    state: dict[str, object] = {"downloaded": set(), "free": None}

    def is_downloaded(spec: ModelSpec) -> bool:
        names = state["downloaded"]
        assert isinstance(names, set)
        return spec.is_bundled or spec.name in names

    monkeypatch.setenv("SFVQA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(choose, "is_downloaded", is_downloaded)
    monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: state["free"])
    return state


def test_a_named_model_is_taken_whatever_else_there_is(here: dict[str, object]) -> None:
    here["downloaded"] = {"slowfast-7b-64f"}
    assert choose_model("x", configured="y").model == "x"
    assert choose_model("x").source is ChoiceSource.NAMED


def test_the_configured_model_comes_next(here: dict[str, object]) -> None:
    here["downloaded"] = {"slowfast-7b-64f"}
    choice = choose_model(configured="y")
    assert (choice.model, choice.source) == ("y", ChoiceSource.CONFIGURED)
    assert "y" in choice.reason


def test_then_a_downloaded_one_that_fits(here: dict[str, object]) -> None:
    here.update(downloaded={"slowfast-7b-96f"}, free=100 * 10**9)
    choice = choose_model(device="cpu")
    assert (choice.model, choice.source) == ("slowfast-7b-96f", ChoiceSource.DOWNLOADED)


def test_then_tiny_which_says_what_it_can_answer(here: dict[str, object]) -> None:
    here["free"] = 100 * 10**9
    choice = choose_model(device="cpu")
    assert (choice.model, choice.source) == ("tiny", ChoiceSource.BUNDLED)
    assert find_model("tiny").can_answer in choice.reason
    assert all(command in choice.reason for command in ("`sfvqa demo`", "`sfvqa models list`"))
    assert len(choice.reason) < 200  # it comes with every question, and was 320 once


def test_a_downloaded_model_that_does_not_fit_is_named_with_what_it_needs(here: dict[str, object]) -> None:
    """Not even its smallest quantization fits."""
    here.update(downloaded={"slowfast-7b-64f"}, free=10 * 10**9)
    choice = choose_model(device="cpu")
    assert choice.model == "tiny"
    assert "slowfast-7b-64f in 4bit with 64 frames needs about" in choice.reason
    assert "on cpu, where 10.0 GB are free" in choice.reason


def test_a_downloaded_model_that_fits_when_quantized_is_taken(here: dict[str, object]) -> None:
    here.update(downloaded={"slowfast-7b-64f"}, free=20 * 10**9)
    assert choose_model(device="cpu").model == "slowfast-7b-64f"


def test_a_kept_copy_of_a_model_that_is_gone_will_do(here: dict[str, object], tmp_path: Path) -> None:
    write_copy(tmp_path, "slowfast-7b-64f", "4bit")
    here["free"] = 100 * 10**9
    choice = choose_model(device="cpu")
    assert (choice.model, choice.reason) == ("slowfast-7b-64f", "Using slowfast-7b-64f, which is kept here in 4bit.")
    assert choose_model(device="cpu", quantization="4bit").model == "slowfast-7b-64f"
    assert choose_model(device="cpu", quantization="8bit").model == "tiny", "there is nothing to load in 8 bits"
    here["free"] = 10 * 10**9
    assert "slowfast-7b-64f in 4bit with 64 frames needs about" in choose_model(device="cpu").reason


def test_the_plan_takes_the_best_copy_that_fits(here: dict[str, object], tmp_path: Path) -> None:
    """Never the model itself, which is gone, however much memory there is."""
    assert read_sizes("slowfast-7b-64f").kept_as == ()
    for bits in ("4bit", "8bit"):
        write_copy(tmp_path, "slowfast-7b-64f", bits)
    sizes = read_sizes("slowfast-7b-64f")
    stands_in = "copy that is kept of slowfast-7b-64f: its own files are not here."
    for free, bits in ((100, "8bit"), (11, "4bit")):
        here["free"] = free * 10**9
        made = plan.make_plan(sizes, device="cpu", dtype="bfloat16")
        assert (made.run.quantization, made.fit.fits) == (bits, True)
        assert f"Using the {bits} {stands_in}" in made.notices
    assert any("the best quantization that fits" in notice for notice in made.notices)
    assert read_sizes("slowfast-7b-64f", random_weights=True).kept_as == ()


def test_what_cannot_be_decoded_statically_is_not_chosen_for_it(here: dict[str, object], tmp_path: Path) -> None:
    """8 bits were, on a GPU that had room for them and not for more, and every item of a batch failed, one by one."""
    here["free"] = 15 * 10**9
    sizes = read_sizes("slowfast-7b-64f")

    def chosen(quantization: str = "auto", *, static_decode: bool) -> str:
        made = plan.make_plan(
            sizes, device="cpu", dtype="bfloat16", quantization=quantization, static_decode=static_decode
        )
        return made.run.quantization

    assert (chosen(static_decode=False), chosen(static_decode=True)) == ("8bit", "4bit")
    with pytest.raises(UsageError, match="8-bit weights"):
        chosen("8bit", static_decode=True)
    write_copy(tmp_path, "slowfast-7b-64f", "8bit")  # all that there is
    sizes = read_sizes("slowfast-7b-64f")
    with pytest.raises(UsageError, match="8-bit weights"):
        chosen(static_decode=True)


def write_copy(data: Path, model: str, quantization: str) -> None:
    """One whose weights nobody reads."""
    folder = data / "quantized" / f"{model}-{quantization}"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).touch()
    Provenance(model, None, "0" * 40, quantization, "cpu", {}).write(folder)


def test_where_free_memory_is_unknown_a_downloaded_model_is_tried(here: dict[str, object]) -> None:
    here["downloaded"] = {"slowfast-7b-64f"}
    assert choose_model(device="cpu").model == "slowfast-7b-64f"
