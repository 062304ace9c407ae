import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from weightfold import methods
from weightfold.methods import catalogue

# The methods among the toys go through every law beside ours.
methods.__path__.append(str(Path(__file__).parents[1] / "toys" / "methods"))


def _load_cases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("core_cases", Path(__file__).parent / "cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = _load_cases()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def cases() -> ModuleType:
    """The module cases.py."""
    return CASES


@pytest.fixture(params=list(catalogue()))
def kind(request) -> str:
    return request.param


@pytest.fixture
def case(kind):
    """Every chart's example, psi moved, in float64."""
    return CASES.make(kind)
