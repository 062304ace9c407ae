import os
import re
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["plain.py", "expanded.py"])
def test_example(name, tmp_path):
    command = [sys.executable, str(EXAMPLES / name), "3"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, cwd=tmp_path, env=one_thread, capture_output=True, text=True, check=True
    )
    found = re.fullmatch(r"test accuracy (\d+\.\d+)%\n", ran.stdout)
    assert found and float(found[1]) > 20, ran.stdout  # chance is 10%
    state = torch.load(tmp_path / "digits.pt", weights_only=True)
    assert state["0.weight"].shape == (4, 1, 5, 5)
    assert set(state) == {
        *(f"{layer}.{tensor}" for layer in (0, 4, 9) for tensor in ("weight", "bias")),
        *(f"{norm}.{tensor}" for norm in (1, 5) for tensor in (
            "weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }  # fmt: skip


def test_three_more_lines():
    plain, expanded = (
        (EXAMPLES / name).read_text().split('"""', 2)[2].splitlines()
        for name in ("plain.py", "expanded.py")
    )
    changes = [line for line in unified_diff(plain, expanded, n=0) if line[:1] in "+-"][2:]
    assert [line for line in changes if line != "+"] == [
        "+import weightfold as wf",
        "+net = wf.expand(net, rate=4)",
        "+net = net.deploy()",
    ]
