from types import SimpleNamespace

import pytest

import weightfold.lab.probing
from weightfold.cli import main
from weightfold.lab.probing import calling
from weightfold.probes.registry import probes


@pytest.fixture
def measured(monkeypatch) -> list:
    """What `weightfold probe` hands to lab.probing, which then finds something made up."""
    calls = []
    found = SimpleNamespace(headline="About 3.", notes=("Seed 1 left out.",))
    monkeypatch.setattr(
        weightfold.lab.probing,
        "measure",
        lambda *args, **options: calls.append((args, options)) or found,
    )
    return calls


def test_a_probe_is_run_and_its_answer_printed(measured, tmp_path, capsys):
    arguments = ["--model", "mlp", "--data", "mnist,limit=50", "--folder", str(tmp_path)]
    more = ["--seeds", "4", "--disturb", "gaussian", "--test-limit", "9", "--device", "cpu"]
    assert main(["probe", "intrinsic-dimension,threshold=0.8", *arguments, *more]) == 0
    call = calling(
        "intrinsic-dimension",
        "mlp",
        "mnist,limit=50",
        threshold=0.8,
        seeds=4,
        disturb="gaussian",
        test_limit=9,
    )
    assert measured == [((call, tmp_path), {"data_root": None, "device": "cpu"})]
    assert capsys.readouterr().out.split("\n\n") == [
        "About 3.",
        "Seed 1 left out.",
        f"everything is in {tmp_path / 'index.html'}\n",
    ]


def test_help_names_every_probe(capsys):
    with pytest.raises(SystemExit):
        main(["probe", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in probes())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["intrinsic", "--model", "mlp", "--data", "digits"], "did you mean 'intrinsic-dimension'"),
        (["intrinsic-dimension", "--data", "digits"], "needs a model"),
        (["intrinsic-dimension,x=1", "--model", "mlp", "--data", "digits"], "no option 'x'"),
        (["intrinsic-dimension,threshold=2", "--model", "mlp,size=8", "--data", "digits"],
         "threshold=2"),
        (["critical-samples", "--model", "mlp,size=8", "--data", "digits"], "a trained network"),
        (["pendulum", "--model", "mlp"], "has its own model"),
        (["intrinsic-dimension", "--model", "mpl", "--data", "digits"], "no network 'mpl'"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_leave_no_folder(arguments, said, tmp_path, capsys):
    assert main(["probe", *arguments, "--folder", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("weightfold: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()
