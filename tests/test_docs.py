"""The documentation: every link resolves, every command parses, the table of settings is the current one."""

import contextlib
import importlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from competition.settings.describe import table
from competition.settings.resolve import load_preset, parse_assignments, resolve
from competition.settings.schema import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = {"results", "performance", "settings", "kaggle", "your-photos", "distributed", "design", "troubleshooting"}
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\b([A-Z_]{2,})\b", MAKEFILE))
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


@cache
def options(module: str) -> set[str]:
    """The options of a command, from its --help."""
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    return set(re.findall(r"--[a-z-]+", screen.getvalue()))


def problem_of_make(line: str) -> str | None:
    """What is wrong with a line of make, if anything."""
    words = [word for word in shlex.split(line)[1:] if not word.startswith("-")]
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name.isupper():
            continue  # a placeholder such as TARGET
        if not equals and name not in TARGETS:
            return f"no target {name}"
        if equals and name not in VARIABLES:
            return f"no variable {name}"
        if name == "SET":
            try:
                settings = parse_assignments(value.replace("=FILE", "=file.pth").split())
                resolve(settings if "network.name" in value else load_preset("cpu") | settings)
            except Exception as error:
                return f"{value}: {error}"
    return None


def problem_of_python(line: str) -> str | None:
    """What is wrong with a line of python -m or torchrun, if anything."""
    words = [word for word in shlex.split(line) if word != "--"]
    if "-m" not in words:
        return None
    module, *arguments = words[words.index("-m") + 1 :]
    if module == "pytest":
        return None
    if module in ("benchmarks.NAME", "package.module"):
        return None
    try:
        known = options(module)
    except ImportError:
        return f"no module {module}"
    unknown = [word for word in arguments if word.startswith("--") and word not in known]
    return f"{module} has no option {unknown[0]}" if unknown else None


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
    assert all((ROOT / name).is_file() for name in ("LICENSE", "CHANGELOG.md", "CITATION.cff"))


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
        ("`make trian FOLD=0`", "make trian FOLD=0: no target trian"),
        ("`make train FLOD=0`", "make train FLOD=0: no variable FLOD"),
        ('`make cv SET="train.epoch=1"`', "unknown setting train.epoch"),
        ("`.venv/bin/python -m folds.trian`", "no module folds.trian"),
        ("`.venv/bin/python -m competition.check --flod 1`", "competition.check has no option --flod"),
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
