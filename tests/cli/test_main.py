import inspect
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import weightfold as wf
import weightfold.cli
import weightfold.lab.compare
from weightfold.cli import main
from weightfold.cli.charts import Charts
from weightfold.cli.scan import commands, variant_lines
from weightfold.lab.variants import ACNET
from weightfold.methods import catalogue
from weightfold.methods.variants import variants
from weightfold.train import RECIPES

COMPARE = ["compare", "--model", "digitnet", "--data", "digits", "--folder", "nowhere"]


def every(folder: ModuleType, *above: str) -> Iterator[tuple[tuple[str, ...], type]]:
    """The words and the class of every command."""
    for name, command in commands(folder).items():
        if isinstance(command, ModuleType):
            yield from every(command, *above, name)
        else:
            yield (*above, name), command


EVERY = dict(every(weightfold.cli))


def exit_code(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


@pytest.fixture
def compared(monkeypatch) -> list:
    """What `weightfold compare` hands to lab.compare, which then does nothing."""
    calls = []
    monkeypatch.setattr(
        weightfold.lab.compare,
        "compare",
        lambda *args, **kwargs: calls.append((args, kwargs)) or SimpleNamespace(page="page"),
    )
    return calls


def test_help_names_every_command_and_chart(capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    for name in (*commands(weightfold.cli), *catalogue(), "--version"):
        assert name in out


def test_a_folder_helps_with_its_commands(capsys):
    assert exit_code("experiment", "--help") == 0
    out = capsys.readouterr().out
    assert "• list " in out and "• run " in out


def test_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"weightfold {weightfold.__version__}\n"


def test_help_names_every_task_and_probe(capsys):
    assert exit_code("train", "--help") == 0
    assert exit_code("probe", "--help") == 0
    out = capsys.readouterr().out
    for name in (*wf.list_tasks(), *wf.list_probes()):
        assert name.startswith("toy-") or f"{name}:" in out


def test_every_experiment_is_listed(capsys):
    assert exit_code("experiment", "list") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in wf.list_experiments())


@pytest.fixture
def toys(monkeypatch):
    """A file and a folder of commands, among ours."""
    folder = Path(__file__).parents[1] / "toys" / "cli"
    monkeypatch.setattr(weightfold.cli, "__path__", [*weightfold.cli.__path__, str(folder)])


def test_a_command_is_a_file_and_a_folder_has_several(toys, capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    assert "toy_greet" in out and "Toys in a folder." in out
    assert exit_code("toy_greet", "--name", "you") == 0
    assert exit_code("toy_folder", "greet", "--name", "them") == 0
    assert capsys.readouterr().out == "hello you\nhello them\n"


def test_a_file_has_one_command(toys, tmp_path, monkeypatch):
    toy = Path(weightfold.cli.__path__[-1], "toy_greet.py").read_text()
    (tmp_path / "toy_two.py").write_text(toy + toy.replace("Greet", "Wave"))
    monkeypatch.setattr(weightfold.cli, "__path__", [*weightfold.cli.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="toy_two"):
        commands(weightfold.cli)


def test_no_arguments_is_help(capsys):
    assert exit_code() == 0
    assert "compare" in capsys.readouterr().out


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_option_is_explained(words, capsys):
    assert exit_code(*words, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for field in EVERY[words].__dataclass_fields__:
        flag = "--" + field.replace("_", "-")
        for index, line in enumerate(lines):
            if f" {flag} " in line:
                explained = line.split("  ", 3)[-1] + lines[index + 1]
                assert any(letter.isalpha() for letter in explained.strip(" │╰─╯")), flag


def test_help_shows_the_recipe_that_is_named(capsys):
    assert exit_code("train", "--recipe", "expandnets-cifar-12", "--help") == 0
    assert "(default: 6 9)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "form", [["--recipe", "expandnets-cifar-12"], ["--recipe=expandnets-cifar-12"]]
)
def test_recipe_and_changes_to_it(form, compared):
    assert exit_code(*COMPARE, *form, "--epochs", "7", "--milestones", "3", "5", "--lr", "0.2") == 0
    wanted = replace(RECIPES["expandnets-cifar-12"], epochs=7, milestones=(3, 5), lr=0.2)
    assert compared[0][1]["recipe"] == wanted


def test_default_recipe_and_seeds(compared):
    assert exit_code(*COMPARE, "--seeds", "3", "--variants", "compact", "cl,rate=2") == 0
    (_, _, variants), options = compared[0]
    assert options["recipe"] == RECIPES["digits"]
    assert options["seeds"] == 3
    assert variants == ("compact", "cl,rate=2")


def test_mistyped_option_suggests_the_right_one(capsys):
    assert exit_code(*COMPARE, "--sedes", "3") == 2
    assert "--seeds" in capsys.readouterr().err


def test_abbreviated_option_is_refused(compared):
    assert exit_code(*COMPARE, "--epoch", "3") == 2
    assert not compared


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*COMPARE, "--recipe", "digit"], "did you mean 'digits'?"),
        ([*COMPARE, "--variants", "compact", "cll"], "variant='cll'"),
        ([*COMPARE, "--variants", "compact"], "at least two"),
        ([*COMPARE, "--seeds", "1"], "at least two"),
        ([*COMPARE, "--data", "dogits"], "did you mean 'digits'?"),
        (["export", "nowhere", "--folder", "out"], "nowhere"),
        (
            ["train", "--model", "digitnet", "--data", "digits", "--folder", "x", "--teacher", "y"],
            "y",
        ),
        (["report", "nowhere"], "nowhere"),
        (["experiment", "run", "table99", "--folder", "x"], "no experiment 'table99'"),
    ],
)
def test_user_errors_are_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("weightfold: ")
    assert err.count("\n") == 1
    assert said in err
    assert not any(tmp_path.iterdir())


def test_recipe_out_of_range_is_refused(capsys):
    assert exit_code(*COMPARE, "--lr", "-1") == 2
    assert "lr=-1.0" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert main(["--debug", *COMPARE, "--variants", "compact"]) == 2
    assert "Traceback" in capsys.readouterr().err


def failing(monkeypatch, error: BaseException) -> None:
    def run(self) -> None:
        raise error

    monkeypatch.setattr(Charts, "run", run)


def test_interrupt(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["charts"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_sigterm_stops_as_an_interrupt_does(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Charts, "run", lambda self: signal.raise_signal(signal.SIGTERM))
    assert main(["charts"]) == 128 + signal.SIGTERM
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_key_errors_lose_their_quotes(monkeypatch, capsys):
    failing(monkeypatch, KeyError("2 missing: 'a',\n'b'"))
    assert main(["charts"]) == 2
    assert capsys.readouterr().err == "weightfold: 2 missing: 'a', 'b'\n"


def test_bugs_are_not_hidden(monkeypatch):
    failing(monkeypatch, AssertionError("a bug"))
    with pytest.raises(AssertionError):
        main(["charts"])


def test_charts(capsys):
    assert main(["charts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = {k: (inspect.getdoc(c) or "").split("\n")[0] for k, c in catalogue().items()}
    assert {line.split()[0]: line.split(None, 1)[1] for line in lines} == wanted


def test_bench_is_wired(monkeypatch, tmp_path):
    from weightfold.bench import expand

    calls = []

    def told(*, threads, repeats, chain, folder):
        calls.append({"threads": threads, "repeats": repeats, "chain": chain, "folder": folder})

    monkeypatch.setattr(expand, "bench_expand", told)
    arguments = ["--threads", "1", "--repeats", "3", "--no-chain", "--folder", str(tmp_path)]
    assert main(["bench", "expand", *arguments]) == 0
    assert calls == [{"threads": 1, "repeats": 3, "chain": False, "folder": tmp_path}]


def test_python_runs_the_package_as_the_command():
    command = [sys.executable, "-m", "weightfold", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"weightfold {wf.__version__}"


def test_variants_of_the_help_are_those_there_are():
    names = ", ".join(variant_lines()).split(", ")
    assert sorted(names) == sorted({*variants(), ACNET.name})
    assert all(variant_lines().values())
