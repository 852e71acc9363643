"""The house rules of the package that a reader may rely on: imports point down, files stay small."""

import ast
from pathlib import Path

import pytest

import sfvqa

PACKAGE = Path(sfvqa.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "errors": set(),
    "wording": set(),
    "given_file": {"errors"},
    "evaluation": {"errors"},
    "video": {"errors"},
    "registry": {"errors", "video"},
    "model": {"errors", "video"},
    "inference": {"errors", "video", "registry", "model"},
    "training": {"errors", "video", "registry", "model", "inference", "profiling", "evaluation"},
    "profiling": {"errors", "video", "registry", "model", "inference", "batch"},
    "batch": {"errors", "given_file", "video", "registry", "model", "inference", "evaluation"},
    "cli": {
        *("errors", "given_file", "video", "registry", "model", "inference", "training", "profiling", "batch"),
        "evaluation",
    },
}
"""Each part of the package and the parts below it."""

ONLY_IN = {
    "typer": {"cli"},
    "rich": {"cli"},
    "prompt_toolkit": {"cli"},
    "torch": {"model", "inference", "training", "profiling"},
    "transformers": {"model", "inference", "training"},
    "matplotlib": {"profiling", "training"},
    "ray": {"batch"},
    "av": {"video", "training", "profiling"},
    "cv2": {"video", "profiling"},
}
"""Libraries and the only parts that import them."""

MAX_FILE_LINES = 320
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
    if part not in MAY_IMPORT:
        assert part in {"__init__", "__main__"}, f"{path} belongs to no part of the house"
        return
    own = {name.split(".")[1] for name in imports(path) if name.startswith("sfvqa.")}
    allowed = MAY_IMPORT[part] | {part, "wording"}
    assert own <= allowed, f"{part} must not import {own - allowed}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        assert part_of(path) in ONLY_IN.get(library, {part_of(path)}), f"{library} does not belong in {part_of(path)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
