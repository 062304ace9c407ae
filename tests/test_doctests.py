"""The example in the docstring of every verb runs and gives what it says."""

import doctest
import inspect

import pytest

import weightfold as wf

VERBS = [name for name in wf.__all__ if inspect.isfunction(getattr(wf, name))]


@pytest.mark.parametrize("name", VERBS)
def test_the_example_holds(name):
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(getattr(wf, name), name, globs={})
    runner = doctest.DocTestRunner()
    runner.run(found)
    assert runner.tries > 0, f"{name} shows no call"
    assert runner.failures == 0
