"""The charts stay small: it is the core that carries the weight."""

import ast
import importlib
import inspect
import io
import pkgutil
import tokenize

import pytest

from weightfold import methods
from weightfold.core.chart import Chart

BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def code_lines(source: str) -> int:
    """Lines with a token of code; docstrings, comments and blank lines apart."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in BLANK and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_the_count():
    source = (
        'class A:\n    """Two\n    lines."""\n\n    # why\n    x = 1\n    y = (\n        2\n    )\n'
    )
    assert code_lines(source) == 5


def own_lines(chart: type[Chart]) -> int:
    """Lines of a chart without `example`, which builds the net that these tests run it on."""
    example = inspect.cleandoc("\n" + inspect.getsource(chart.__dict__["example"]))
    return code_lines(inspect.getsource(chart)) - code_lines(example)


CHARTS = {
    value.__name__: value
    for info in pkgutil.iter_modules(methods.__path__)
    if info.ispkg
    for value in vars(importlib.import_module(f"{methods.__name__}.{info.name}.chart")).values()
    if isinstance(value, type) and issubclass(value, Chart) and value is not Chart
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_stays_small(name):
    executors = "executors" in CHARTS[name].__dict__
    assert own_lines(CHARTS[name]) <= (120 if executors else 60)
