"""The house: imports go one way, and what needs no torch starts without it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "competition": {"competition"},
    "folds": {"competition", "folds"},
    "submissions": {"competition", "submissions"},
    "inference": {"competition", "folds", "submissions", "inference"},
}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The top-level names of what a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = imported(path) & MAY_IMPORT.keys()
    assert ours <= MAY_IMPORT[package]


def test_one_module_imports_kaggle() -> None:
    users = [path for path in MODULES if imported(path) & {"kaggle", "kagglesdk"}]
    assert len(users) == 1


@pytest.mark.parametrize("package", ["competition", "submissions"])
def test_starts_without_torch(package: str) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.name.startswith("__")
    ]
    code = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
    code += "assert not {'torch', 'timm', 'albumentations', 'kaggle'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
