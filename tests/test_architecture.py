"""The house rules of the package that a reader may rely on: imports point down, functions fit on a screen."""

import ast
from pathlib import Path

import pytest

import sfvqa

PACKAGE = Path(sfvqa.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

BELOW = {
    "errors": set(),
    "wording": set(),
    "spreadsheet": set(),
    "given_file": {"errors"},
    "evaluation": {"errors"},
    "video": {"errors", "spreadsheet"},
    "registry": {"errors"},
    "model": {"errors", "video"},
    "checkpoints": {"errors", "video", "registry", "model"},
    "inference": {"errors", "video", "registry", "model", "checkpoints"},
}
"""Each part of the package and the parts below it."""
BELOW["profiling"] = {*BELOW["inference"], "inference"}
BELOW["transformers"] = BELOW["lmms_eval"] = BELOW["llm"] = BELOW["profiling"]
BELOW["training"] = {*BELOW["inference"], "inference", "evaluation"}
BELOW["serve"] = {*BELOW["inference"], "inference"}
BELOW["batch"] = {*BELOW["inference"], "inference", "evaluation", "given_file", "spreadsheet"}
BELOW["cli"] = {*BELOW["batch"], "batch", "profiling", "serve"}
BELOW["lab"] = {*BELOW["batch"], "batch", "profiling", "serve", "training"}

ONLY_IN = {
    "typer": {"cli"},
    "rich": {"cli", "training"},
    "prompt_toolkit": {"cli"},
    "torch": {"model", "checkpoints", "inference", "transformers", "lmms_eval", "training", "profiling", "lab", "cli"},
    "transformers": {"model", "checkpoints", "inference", "transformers", "training", "lab"},
    "matplotlib": {"profiling", "lab", "cli"},
    "ray": {"batch"},
    "fastapi": {"serve"},
    "uvicorn": {"serve"},
    "mcp": {"serve"},
    "llm": {"llm"},
    "av": {"video", "lab"},
    "faster_whisper": {"inference"},
    "cv2": {"video", "lab"},
}
"""Libraries and the only parts that import them; `cli` asks torch for the devices, in `doctor`."""

MAX_FUNCTION_LINES = 70


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part not in BELOW:
        assert part in {"__init__", "__main__"}, f"{path} belongs to no part of the house"
        return
    own = {name.split(".")[1] for name in imports(path) if name.startswith("sfvqa.")}
    allowed = BELOW[part] | {part, "wording"}
    assert own <= allowed, f"{part} must not import {own - allowed}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        assert part_of(path) in ONLY_IN.get(library, {part_of(path)}), f"{library} does not belong in {part_of(path)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
