"""What is published: one version, a wheel that holds the product and nothing else, and checks for what we claim."""

import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import sfvqa

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree."""
    return zipfile.ZipFile(next(WheelBuilder(str(TOP)).build(directory=str(tmp_path_factory.mktemp("wheel")))))


def tracked() -> set[str]:
    """Every file that is in git or is about to be, or a skip outside of a clone."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    return set(listed.stdout.splitlines())


def test_a_wheel_holds_the_product_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    product = {path for path in tracked() if path.startswith("sfvqa/") and not path.startswith("sfvqa/lab/")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == product | {"sfvqa/models.toml"}
    assert {"sfvqa/assets/tiny/model.safetensors", "sfvqa/assets/demo/shapes.mp4", "sfvqa/py.typed"} <= held


def test_a_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"sfvqa-{sfvqa.__version__}.dist-info"
    assert "sfvqa = sfvqa.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_the_wheel_of_an_sdist_is_the_wheel_of_the_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    source = next(SdistBuilder(str(TOP)).build(directory=str(tmp_path)))
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"sfvqa-{sfvqa.__version__}"
    again = zipfile.ZipFile(next(WheelBuilder(str(unpacked)).build(directory=str(tmp_path))))
    assert {name: again.read(name) for name in again.namelist()} == {n: wheel.read(n) for n in wheel.namelist()}
    assert {PurePosixPath(name) for name in (".ci/run", "tests/conftest.py", "CHANGELOG.md")} <= {
        PurePosixPath(path.relative_to(unpacked).as_posix()) for path in unpacked.rglob("*")
    }


def test_the_version_stands_in_one_place() -> None:
    """Only `sfvqa.__version__` is edited; what else names a version is held to it here."""
    assert "version" in PROJECT["dynamic"]
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert citation["version"] == sfvqa.__version__
    headings = [line for line in (TOP / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].startswith(f"## {sfvqa.__version__}")


def test_the_workflows_run_the_checks_on_every_python_that_we_name() -> None:
    """`.ci/run` on Linux; the fast tests on macOS, Windows, and each further Python."""
    jobs = yaml.safe_load((TOP / ".github/workflows/checks.yml").read_text())["jobs"]
    assert any(step.get("run") == ".ci/run" for step in jobs["all-checks"]["steps"])
    matrix = jobs["fast-tests"]["strategy"]["matrix"]
    ran = {
        *matrix["python"],
        *(step["with"]["python-version"] for step in jobs["all-checks"]["steps"] if "with" in step),
    }
    named = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if " :: 3." in name}
    assert ran == named
    assert {"macos-latest", "windows-latest"} == {one["os"] for one in matrix["include"]}
    assert ".ci/run" in tracked()
