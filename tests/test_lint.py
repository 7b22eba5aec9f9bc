"""The habits that tools can check."""

import ast
import re
import subprocess
import sys

import pytest

from tests.tiny import ROOT

FLOORS = ("bins", "models", "preprocessors", "processors", "modules", "config", "utils")
FOLDERS = ("egs", "tests", *FLOORS)
FILES = [
    path
    for folder in FOLDERS
    for suffix in ("py", "sh")
    for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
]


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff(arguments):
    ruff = [sys.executable, "-m", "ruff", *arguments, "--no-cache", *FOLDERS]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


LONGEST = 340  # lines of a file that is read in one sitting


def test_every_file_is_read_in_one_sitting():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert len(lengths) > 50
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_names_of_test_files_differ():
    """pytest imports them by name alone."""
    names = [path.name for path in FILES if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("page", ["README.md", "egs/tta/README.md"])
def test_files_that_a_page_names_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    top = "|".join(("egs", *FLOORS, "tests"))
    named = set(re.findall(rf"(?<![\w/])((?:{top})/[\w./*-]*\w)", text))
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    paths = [*(ROOT / name for name in named), *((ROOT / page).parent / name for name in linked)]
    patterns = [str(path.resolve().relative_to(ROOT)) for path in paths]
    assert len(patterns) > 5
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []


@pytest.mark.parametrize("script", [p for p in FILES if p.suffix == ".sh"], ids=lambda p: p.name)
def test_scripts_are_posix(script):
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    assert "pipefail" not in script.read_text()
    assert "[[" not in script.read_text()


REQUIREMENTS = ("requirements.txt", "tests/requirements.txt", "egs/tta/studio/requirements.txt")


def test_what_is_imported_is_pinned():
    pinned = {
        line.partition("==")[0].replace("-", "_")
        for file in REQUIREMENTS
        for line in (ROOT / file).read_text().splitlines()
        if not line.startswith("#")
    }
    ours = {*FOLDERS, *sys.stdlib_module_names}
    brought_along = {"huggingface_hub", "tokenizers"}  # by transformers
    brought_along |= {"psutil"}  # by accelerate
    brought_along |= {"fastapi", "starlette", "uvicorn", "gradio_client", "httpx"}  # by gradio
    import_names = {"pillow": "PIL"}
    imported = {
        name.partition(".")[0]
        for path in FILES
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        for name in names_of_import(node)
    }
    assert imported - ours - brought_along == {
        import_names.get(name, name) for name in pinned - {"ruff", "pytest_xdist"}
    }


def names_of_import(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
