"""The table of mutants cannot rot: each still applies. That tests catch them is for run.py."""

import ast
from collections import Counter

import pytest

from tests.mutants.run import ROOT, read_table

TABLE = read_table()


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.id)
def test_every_mutant_applies(mutant):
    changed = mutant.source(ROOT)
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    if mutant.file.endswith(".py"):
        changed, before = (ast.dump(ast.parse(text)) for text in (changed, before))
    assert changed != before
    assert mutant.wrong
    assert mutant.tests
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).is_file()


def test_names_of_mutants_differ():
    assert {name: n for name, n in Counter(mutant.id for mutant in TABLE).items() if n > 1} == {}
    assert len(TABLE) >= 30
