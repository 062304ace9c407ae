"""What a method's folder holds."""

from pathlib import Path

import pytest

import weightfold as wf
from weightfold import methods
from weightfold.core.mixins import CallContext
from weightfold.methods import catalogue

FOLDERS = [f for f in sorted(Path(methods.__file__).parent.iterdir()) if (f / "chart.py").exists()]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_has_a_chart_a_verb_and_half_a_page(folder):
    kinds = [k for k, c in catalogue().items() if f".{folder.name}." in c.__module__]
    assert kinds
    assert getattr(wf, folder.name).__module__ == f"weightfold.methods.{folder.name}.verb"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"wf.{folder.name}(" in text and "Source: " in text
    assert 12 <= len(text.splitlines()) <= 40


@pytest.mark.parametrize("kind", list(catalogue()))
def test_a_chart_overrides_five_methods(kind):
    """The other public methods are a mixin's, or help the method's own files."""
    chart = catalogue()[kind]
    assert {"forward", "fit", "config", "build", "example"} <= set(vars(chart))
    example = chart.example()
    assert bool(example.at) == isinstance(example.chart, CallContext)
