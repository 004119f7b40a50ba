"""The documentation: every link resolves, every command parses, the table of settings is the current one."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

from competition import command
from competition.settings.describe import table
from competition.settings.resolve import load_preset, merge, parse_assignments, resolve
from competition.settings.schema import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = {
    "results",
    "performance",
    "settings",
    "kaggle",
    "your-photos",
    "cutouts",
    "distributed",
    "design",
    "troubleshooting",
}
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
# These tests may be started by make, whose variables must not reach the makes under test.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def names(path: Path) -> str:
    """A readable test id."""
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that do not resolve."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def commands(page: Path) -> list[str]:
    """Everything in code blocks and code spans of a page that is a command."""
    text = page.read_text()
    blocks = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    found = [line.partition("  #")[0].strip() for line in blocks + spans]
    return [line for line in found if re.match(r"(make|torchrun|\S*python) ", f"{line} ")]


class Parsed(Exception):
    """A command has parsed its command line; it is not run further."""


class Parses(ArgumentParser):
    """A parser that ends the command after its command line."""

    def parse_args(self, *given: Any) -> NoReturn:  # type: ignore[override]
        super().parse_args(*given)
        raise Parsed


@cache
def problem_of_module(module: str, *arguments: str) -> str | None:
    """What a command's own parser finds wrong with its command line, if anything."""
    if module == "folds.launch":
        return problem_of_module(*arguments[arguments.index("--nproc") + 2 :])
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(screen):
        patch.setattr(sys, "argv", [module, *arguments])
        patch.setattr(command, "Parser", type("Parser", (Parses, command.Parser), {}))
        try:
            package = hasattr(importlib.import_module(module), "__path__")
            importlib.import_module(f"{module}.__main__" if package else module).main()
        except Parsed:
            return None
        except ImportError:
            return f"no module {module}"
        except SystemExit as end:
            return screen.getvalue() if end.code else None
    raise AssertionError(f"{module} does not parse its command line first")


def problem_of_make(line: str) -> str | None:
    """What is wrong with a line of make, if anything; it is expanded with ``make -n``, and nothing is run."""
    words = shlex.split(line)[1:]
    if any(word.isupper() and "=" not in word for word in words):
        return None  # a placeholder such as TARGET
    how: dict[str, Any] = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    made = subprocess.run(["make", "-n", *words], **how, check=False)
    if made.returncode:
        return made.stderr
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if value := given.get("SET"):
        preset = {} if "network.name" in value else load_preset(given.get("PRESET", "cpu"))
        try:
            resolve(merge(preset, parse_assignments(value.replace("=FILE", "=file.pth").split())))
        except Exception as error:
            return f"{value}: {error}"
    calls = re.findall(r"^\S+/python -m +(\w+\.\w+.*?)(?: \|\| .*)?$", made.stdout, re.MULTILINE)
    return next((problem for call in calls if (problem := problem_of_module(*shlex.split(call)))), None)


def problem_of_python(line: str) -> str | None:
    """What is wrong with a line of python -m or torchrun, if anything."""
    words = [word for word in shlex.split(line) if word != "--"]
    if "-m" not in words:
        return None
    module, *arguments = words[words.index("-m") + 1 :]
    if module in ("pytest", "benchmarks.NAME", "package.module"):
        return None
    return problem_of_module(module, *arguments)


def problems(page: Path) -> list[str]:
    """All commands of a page that do not parse."""
    found = []
    for line in commands(page):
        problem = problem_of_make(line) if line.startswith("make") else problem_of_python(line)
        if problem:
            found.append(f"{line}: {problem}")
    return found


def test_every_page_exists() -> None:
    assert {page.stem for page in PAGES} >= NAMED
    assert all((ROOT / name).is_file() for name in ("LICENSE", "CITATION.cff"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_parse(page: Path) -> None:
    assert problems(page) == []


def test_every_target_is_in_the_readme() -> None:
    described = set(re.findall(r"^\| `make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    hidden = {"help", "setup", "demo", "test", "lint", "format", "bench", "bench-setup", "clean-demo"}
    assert described == TARGETS - hidden


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[x](docs/nowhere.md)", "docs/nowhere.md"),
        ("[x](README.md#no-such-heading)", "README.md#no-such-heading"),
        ("`make trian FOLD=0`", "No rule to make target 'trian'"),
        ("`make train FLOD=0`", "make train takes no variable FLOD"),
        ("`make train STAMP=1`", "make train takes no variable STAMP"),
        ("`make report FOLDS=2`", "make report takes no variable FOLDS"),
        ("`make train FOLD=first`", "argument --fold: invalid int value: 'first'"),
        ('`make cv SET="train.epoch=1"`', "unknown setting train.epoch"),
        ("`.venv/bin/python -m folds.trian`", "no module folds.trian"),
        ("`.venv/bin/python -m competition.check --flod 1`", "unrecognized arguments: --flod 1"),
        ("`python -m folds.train --run x`", "one of the arguments --fold --all is required"),
        ("`make train NPROC=2 FOLD=first`", "argument --fold: invalid int value: 'first'"),
    ],
)
def test_a_broken_page_is_found(tmp_path: Path, text: str, problem: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{text}\n")
    found = broken_links(page) + problems(page)
    assert len(found) == 1
    assert problem in found[0]


def test_the_table_of_settings_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    shown = page.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]
    assert shown.strip() == table(Settings()).strip(), "run make settings with --markdown and paste it"
