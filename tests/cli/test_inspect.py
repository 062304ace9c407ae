from types import SimpleNamespace

import pytest
import torch

import weightfold.lab.inspect
from weightfold.cli import main


@pytest.fixture
def inspected(monkeypatch, tmp_path) -> list:
    """What `weightfold inspect` hands to lab.inspect, which then finds something made up."""
    calls = []
    found = SimpleNamespace(
        findings={"x": SimpleNamespace(headline="About 3.")},
        left_out={"y": "not run: needs about 9 minutes by itself"},
        page=tmp_path / "index.html",
    )
    monkeypatch.setattr(
        weightfold.lab.inspect,
        "inspect",
        lambda *args, **options: calls.append((args, options)) or found,
    )
    return calls


def test_an_inspection_prints_its_answers(inspected, stripes, tmp_path, capsys):
    arguments = ["--model", "digitnet", "--data", str(stripes), "--folder", str(tmp_path)]
    assert main(["inspect", *arguments, "--minutes", "3", "--device", "cpu"]) == 0
    ((model, samples), options), = inspected  # fmt: skip
    assert options == {
        "minutes": 3.0,
        "folder": tmp_path,
        "title": f"digitnet on {stripes}",
        "device": "cpu",
        "progress": True,
    }
    assert len(samples.train) == 96
    assert model(0)(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    assert capsys.readouterr().out.split("\n\n") == [
        "About 3.",
        "y: not run: needs about 9 minutes by itself",
        f"everything is in {tmp_path / 'index.html'}\n",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "digitnt", "--data", "digits"], "no network 'digitnt'"),
        (["--model", "digitnet", "--data", "digitz"], "did you mean 'digits'"),
        (["--model", "digitnet", "--data", "digits", "--minutes", "0"], "minutes=0"),
    ],
)
def test_errors_are_one_line_and_leave_no_folder(arguments, said, tmp_path, capsys):
    assert main(["inspect", *arguments, "--folder", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("weightfold: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()
