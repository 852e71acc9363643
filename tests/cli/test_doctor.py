"""`sfvqa doctor` works where something else does not, and says what."""

import json
import sys
from pathlib import Path

import pytest

from sfvqa.checkpoints import plan
from sfvqa.cli import doctor
from tests.cli.conftest import RunCli


@pytest.fixture(autouse=True)
def _empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SFVQA_MODELS", str(tmp_path / "models.toml"))


def test_all_is_well(run_cli: RunCli) -> None:
    run = run_cli("doctor")
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.stdout.startswith("Everything that `sfvqa ask` needs is here.\n")
    for word in (
        "tiny, 32 frames",
        "torch",
        "bitsandbytes",
        "flash-attn",
        "PyAV",
        "libavcodec",
        "model cache",
        "encoded videos",
    ):
        assert word in run.stdout


def test_everything_as_json(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "file").write_bytes(bytes(1000))
    document = json.loads(run_cli("doctor", "--json").stdout)
    assert (document["schema_version"], document["ok"], document["problems"]) == (1, True, [])
    assert document["choice"]["model"] == "tiny"
    assert document["choice"]["fits"] is True
    assert document["folders"]["hugging_face_cache"] == {
        "path": str(tmp_path / "hub"),
        "exists": True,
        "size_bytes": 1000,
    }
    videos = {"path": str(tmp_path / "cache" / "videos"), "exists": False, "size_bytes": 0}
    assert document["folders"]["video_cache"] == videos
    assert [model["name"] for model in document["models"]] == ["tiny"]
    assert document["packages"]["torch"]["version"]
    assert document["machine"]["cpu_cores"] >= 1


def test_variables_and_the_config_file_change_the_choice(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.toml").write_text('dtype = "bfloat16"\nframes = 8\n', encoding="utf-8")
    monkeypatch.setenv("SFVQA_FRAMES", "4")
    choice = json.loads(run_cli("doctor", "--json").stdout)["choice"]
    assert (choice["dtype"], choice["num_frames"]) == ("bfloat16", 4)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('quant = "3bit"', "Invalid value for `quant` in "),
        ('temperature = "hot"', "Invalid value for `temperature` in "),
        ('frames = "lots"', "Invalid value for `frames` in "),
        ('fps = 2\ntimestamps = "1,2"', "fps"),
    ],
)
def test_a_setting_that_ask_would_refuse_is_a_problem_in_the_same_words(
    run_cli: RunCli, tmp_path: Path, line: str, says: str
) -> None:
    """Some were no problem at all, others an error of Python's."""
    (tmp_path / "absent.toml").write_text(line, encoding="utf-8")
    run = run_cli("doctor")
    assert run.exit_code == 1
    assert says in run.stdout.splitlines()[0]
    assert "Error" not in run.stdout.splitlines()[0]


@pytest.mark.parametrize("variable", ["SFVQA_CONFIG", "SFVQA_MODELS"])
def test_a_file_that_cannot_even_be_looked_for_hides_nothing(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """As one in a folder of somebody else's: asking whether it exists raised, and doctor said nothing else."""
    monkeypatch.setenv(variable, "n" * 300)
    run = run_cli("doctor", "--json")
    assert run.exit_code == 1
    document = json.loads(run.stdout)
    assert "cannot be read" in document["problems"][0]
    assert document["readers"]["pyav"]["version"]
    assert run_cli("doctor").stdout.startswith("Problem: ")


@pytest.mark.parametrize("name", ["config.toml", "models.toml"])
def test_a_broken_file_is_a_problem_and_hides_nothing(run_cli: RunCli, tmp_path: Path, name: str) -> None:
    path = tmp_path / ("absent.toml" if name == "config.toml" else "models.toml")
    path.write_text("= broken", encoding="utf-8")
    run = run_cli("doctor")
    assert run.exit_code == 1
    assert run.stdout.startswith("Problem: ")
    assert str(path) in run.stdout.splitlines()[0]
    assert "PyAV" in run.stdout


def test_a_broken_library_is_a_line(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)  # importing it is an ImportError
    run = run_cli("doctor")
    assert run.exit_code == 1
    assert run.stdout.startswith("Problem: accelerate cannot be used: ModuleNotFoundError")
    assert "cannot be used" in next(line for line in run.stdout.splitlines() if line.startswith("  accelerate"))


def test_an_optional_library_that_is_broken_is_no_problem(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert run_cli("doctor").exit_code == 0


def test_one_reader_is_enough(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, str]:
        raise OSError("libavcodec.so is missing")

    monkeypatch.setattr("sfvqa.video.readers.pyav_version", broken)
    run = run_cli("doctor")
    assert run.exit_code == 0
    assert "cannot be used: OSError: libavcodec.so is missing" in run.stdout
    monkeypatch.setattr("sfvqa.video.readers.opencv_version", broken)
    assert "Neither PyAV nor OpenCV" in run_cli("doctor").stdout


def test_a_configured_model_that_is_not_here_is_a_problem(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_MODEL", "slowfast-7b-64f")
    run = run_cli("doctor")
    assert run.exit_code == 1
    assert "is not on this machine" in run.stdout.splitlines()[0]


def test_too_little_memory_is_a_problem(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "free_memory_bytes", lambda _device: 10**8)
    run = run_cli("doctor")
    assert run.exit_code == 1
    assert "Use fewer frames" in run.stdout.splitlines()[0]


def test_gpus_are_named_with_their_memory(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"device": "cuda:0", "name": "Some GPU", "memory_bytes": 24 * 10**9, "free_memory_bytes": 20 * 10**9}
    facts = {"cuda_build": "13.0", "cuda": [gpu], "cuda_trouble": None, "mps": False, "threads": 1}
    monkeypatch.setattr(doctor, "devices", lambda: facts)
    assert "Some GPU, 24.0 GB of memory, 20.0 GB free" in run_cli("doctor").stdout
