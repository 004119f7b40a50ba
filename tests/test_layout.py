"""The layout: imports go one way and form no cycle, and one file names the files of a run."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "competition": {"competition"},
    "folds": {"competition", "folds"},
    "submissions": {"competition", "submissions"},
    "inference": {"competition", "folds", "submissions", "inference"},
}
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT, "benchmarks"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in MAY_IMPORT
    for path in sorted((ROOT / package).rglob("*.py"))
}
OURS = {*MAY_IMPORT, "tests"}
# Only competition/run/folder.py spells the names of these JSON files, and only competition/run/records.py their keys.
NAMES = "cv", "submission"
# These files parse JSON that is no record of a run: Kaggle's replies and credentials, the state of a download, of the
# studio or of shards, settings in the metadata of weights, the metadata of exported models, the manifest of cut-outs,
# results of benchmarks.
PARSE_JSON = {
    "benchmarks.ablation",
    "competition.files",
    "competition.kaggle.calls",
    "competition.kaggle.client",
    "competition.kaggle.credentials",
    "competition.kaggle.download",
    "competition.kaggle.source_folder",
    "competition.kaggle.staging",
    "competition.run.records",
    "competition.studio.data_set",
    "folds.checkpoint",
    "folds.studio_weights",
    "inference.cutouts.manifest",
    "inference.cv.kept_levels",
    "inference.engine.onnx_model",
    "inference.shards",
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, inside functions and under TYPE_CHECKING too."""
    return names_imported(parsed(path))


def names_imported(tree: ast.AST) -> set[str]:
    """The dotted names in the import statements of a tree."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or an empty list."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for name in sorted(imports[module]):
            if cycle := visit(name, [*path, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in imports if (cycle := visit(module, []))), [])


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in sorted(imported(path))
        if (package := name.split(".")[0]) in OURS and package not in MAY_IMPORT[module.split(".")[0]]
    ]
    assert not wrong


def test_no_import_cycle() -> None:
    cycle = find_cycle({module: imported(path) & MODULES.keys() for module, path in MODULES.items()})
    assert not cycle, " -> ".join([*cycle, cycle[0]])


def late_imports(tree: ast.AST) -> set[str]:
    """Our modules that are imported inside functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    names = {name for function in functions for name in names_imported(function)}
    return {name for name in names if name in MODULES or name.split(".")[0] == "tests"}


def test_imports_inside_functions_are_of_other_packages() -> None:
    late = {(module, name) for module, path in MODULES.items() for name in late_imports(parsed(path))}
    assert not late


def test_slow_packages_are_imported_where_they_are_used() -> None:
    """A command with nothing to do ends within seconds: each of these takes a tenth of the time of its imports."""
    slow = {"albumentations", "timm", "torchvision", "tensorboard", "onnx", "onnxruntime"}
    found = set()
    for module, path in MODULES.items():
        if module.split(".")[0] in ("folds", "inference"):
            found |= {(module, name) for name in imported_at_once(path) if set(name.split(".")) & slow}
    assert not found


def imported_at_once(path: Path) -> set[str]:
    """The names that an import of a module imports, not its functions."""
    top = [node for node in parsed(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return names_imported(ast.Module(top, []))


def test_a_second_cross_validation_does_not_import_pandas() -> None:
    """Nearly all of its time is imports."""
    seen, waiting = set(), {"inference.cv.__main__"}
    while waiting:
        seen |= waiting
        names = {name for module in waiting & MODULES.keys() for name in imported_at_once(MODULES[module])}
        waiting = names - seen
    assert "folds.trainer" in seen
    assert not {"pandas", "sklearn"} & {name.split(".")[0] for name in seen}


def test_late_imports_are_found() -> None:
    code = "import inference\ndef f():\n    import torch\n    if torch:\n        from folds.frame import Frame\n"
    assert late_imports(ast.parse(code)) == {"folds.frame"}


def test_find_cycle_finds_one() -> None:
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_one_module_imports_kaggle() -> None:
    users = [
        path for path in MODULES.values() if {name.split(".")[0] for name in imported(path)} & {"kaggle", "kagglesdk"}
    ]
    assert len(users) == 1


@pytest.mark.parametrize("name", NAMES)
def test_one_file_names_a_record(name: str) -> None:
    files = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    naming = [path for path in files if f'"{name}.json"' in path.read_text(encoding="utf-8")]
    assert naming == [ROOT / "competition" / "run" / "folder.py"]


def test_records_are_read_as_objects() -> None:
    """A module that parses the JSON of a record itself would have to spell its keys."""
    parses = re.compile(r"\b(json\.loads?|read_json|model_validate_json)\(")
    assert {module for module, path in MODULES.items() if parses.search(path.read_text())} <= PARSE_JSON


@pytest.mark.parametrize("package", ["competition", "submissions"])
def test_starts_without_torch(package: str) -> None:
    """Without pandas too, whose import is half of the time that these commands take to start."""
    modules = [name for name in MODULES if name.startswith(f"{package}.") and not name.endswith("__main__")]
    code = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
    code += "assert not {'torch', 'timm', 'albumentations', 'kaggle', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("value", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
@pytest.mark.parametrize("module", ["folds.train", "inference.shards", "benchmarks.stand_ins"])
def test_openmp_threads_sleep_before_torch_is_imported(module: str, value: str | None, expected: str) -> None:
    """The process ends at the first import of torch, which reads the variable."""
    code = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder())
"""
    environment = {name: each for name, each in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": value} if value else {}
    command = [sys.executable, "-c", f"{code}import {module}"]
    found = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == expected
