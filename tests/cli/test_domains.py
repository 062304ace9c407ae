"""`weightfold domains`: options, plans, and refusals."""

import json
import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from weightfold.cli import domains, main
from weightfold.cli.scan import commands
from weightfold.methods.share.plan import Plan
from weightfold.nets import build
from weightfold.train.domains.inputs import seeded_model, take_weights

COMMANDS = commands(domains)


def exit_code(*arguments: str) -> int:
    try:
        return main(["domains", *arguments])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


def test_help_names_every_command(capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    assert all(f"• {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name, capsys):
    assert exit_code(name, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    options = [i for i, line in enumerate(lines) if re.match(r"[│ ] --[a-z]", line)]
    for index in options:
        explained = lines[index].split("  ", 3)[-1] + lines[index + 1]
        assert any(letter.isalpha() for letter in explained.strip(" │╰─╯")), lines[index]
    assert len(options) >= len(COMMANDS[name].__dataclass_fields__) - 2


def test_help_of_train_shows_the_recipe_that_is_named(capsys):
    assert exit_code("train", "--recipe", "expandnets-cifar-12", "--help") == 0
    assert "(default: 6 9)" in capsys.readouterr().out


def test_unknown_command(capsys):
    assert exit_code("plna") == 2
    assert "plan" in capsys.readouterr().err


def test_plan_prints_the_account_and_keeps_the_plan(tmp_path, capsys):
    out = tmp_path / "plan.json"
    heads = ["--heads", "birds=7", "cars=3", "--image-shape", "1", "8", "8"]
    assert exit_code("plan", "--model", "digitnet", *heads, "--out", str(out)) == 0
    plan = Plan.from_json(json.loads(out.read_text()))
    account = plan.account({"birds": 7, "cars": 3})
    printed = capsys.readouterr().out
    assert plan.choice["fraction"] == 0.2
    assert plan.choice["input_size"] == [1, 1, 8, 8]
    assert f"{account.total.parameters:,}" in printed
    assert f"{account.independent.bytes:,}" in printed


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        (["--num-filters", "5"], {"num_filters": 5, "fraction": None}),
        (["--fraction", "0"], {"num_filters": None, "fraction": 0.0}),
        (["--strategy", "random", "--seed", "3"], {"strategy": "random", "seed": 3}),
        (["--budget", "macs", "--bn", "shared"], {"budget": "macs", "bn": "shared"}),
        (["--shared-norms", "*2"], {"shared_norms": ["bn2"]}),
    ],
)
def test_options_of_the_plan(options, choice, tmp_path):
    out = tmp_path / "plan.json"
    heads = ["--heads", "birds=7", "--image-shape", "1", "8", "8"]
    assert exit_code("plan", "--model", "digitnet", *heads, *options, "--out", str(out)) == 0
    made = json.loads(out.read_text())["choice"]
    assert {key: made[key] for key in choice} == choice


def test_plan_takes_classes_and_shape_of_data(domains, tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = ["--domains", *domains, "--out", str(out)]
    assert exit_code("plan", "--model", "digitnet", *arguments) == 0
    account = Plan.from_json(json.loads(out.read_text())).account({"birds": 4, "cars": 3})
    assert f"{account.total.bytes:,}" in capsys.readouterr().out


def test_what_of_batch_norm_counts(capsys):
    heads = ["--heads", "birds=7", "--image-shape", "1", "8", "8"]
    totals = []
    for counted in ("affine", "stats", "all"):
        assert exit_code("plan", "--model", "digitnet", *heads, "--count-bn", counted) == 0
        (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("│ total"))
        totals.append(int(line.split("│")[2].replace(",", "")))
    assert [b - a for a, b in pairwise(totals)] == [2 * (4 + 8), 2]


PLAN = ["plan", "--model", "digitnet", "--image-shape", "1", "8", "8"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PLAN], "either with --heads or with --domains"),
        ([*PLAN, "--heads", "birds=x"], "'birds=x' is not NAME=CLASSES"),
        ([*PLAN, "--heads", "birds=2", "birds=3"], "'birds' is named twice"),
        ([*PLAN, "--heads", "birds=0"], "'birds=0' is not NAME=CLASSES"),
        ([*PLAN, "--heads", "birds=2", "--fraction", "1.5"], "between 0 and 1"),
        ([*PLAN, "--heads", "birds=2", "--fraction", "0.0001"], "less than the first filter"),
        (["plan", "--model", "smallnet_a", "--heads", "a=2"], "give image_shape as (channels"),
        (["eval", "nowhere", "--domains", "a=digits"], "holds no saved net"),
        (["remove", "nowhere", "birds"], "holds no saved net"),
        (["serve", "nowhere", "--max-batch", "0"], "max_batch=0"),
    ],
)
def test_user_errors_are_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("weightfold: ")
    assert err.count("\n") == 1
    assert said in err
    assert not any(tmp_path.iterdir())


def train_with(domains, folder, *options: str) -> int:
    model = [] if "--model" in options else ["--model", "digitnet"]
    return exit_code("train", *model, "--domains", *domains, "--folder", str(folder), *options)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"cars": "birds"}, [], "'birds' is named twice"),
        ({"cars=": "ca rs="}, [], "no name of a domain"),
        ({"cars=": ""}, [], "write 'name=dataset'"),
        ({"cars.npz": "nothing.npz"}, [], "nothing.npz"),
        ({"cars.npz": "empty.npz"}, [], "domain 'cars="),
        ({"cars.npz": "cars.npz,rgb=true"}, [], "different channels (birds: 1, cars: 3)"),
        ({"cars.npz": "cars.npz,size=9"}, [], "domain 'cars': 'digitnet' does not take"),
        ({}, ["--fraction", "-0.1"], "between 0 and 1"),
        ({}, ["--seeds", "0"], "seeds=0"),
        ({}, ["--strategies", "top", "top"], "each once"),
        ({}, ["--strategies", "top", "bottom", "--num-filters", "2"], "compare them by fraction"),
        ({}, ["--unflipped", "boats"], "unflipped has 'boats'; the domains are birds, cars"),
        ({}, ["--loss-weights", "birds", "1"], "loss_weights lacks cars"),
        ({}, ["--plan", "absent.json"], "absent.json"),
        ({}, ["--weights", "absent.safetensors"], "absent.safetensors"),
        ({}, ["--decay-on", "theta", "--weight-decay", "0.1"], "decay_on"),
    ],
)
def test_training_refuses_before_work(changes, options, said, domains, tmp_path, capsys):
    for old, new in changes.items():
        domains = [domains[0], domains[1].replace(old, new)]
    assert train_with(domains, tmp_path / "out", *options) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_plan_is_refused_for_another_model_and_beside_its_options(domains, tmp_path, capsys):
    plan = ["--plan", str(tmp_path / "plan.json")]
    (tmp_path / "plan.json").write_text("import torch")
    assert train_with(domains, tmp_path / "out", *plan) == 2
    assert "is no JSON" in capsys.readouterr().err
    made = ["plan", "--model", "smallnet_a", "--heads", "a=2", "--image-shape", "1", "32", "32"]
    assert exit_code(*made, "--out", plan[1]) == 0
    assert train_with(domains, tmp_path / "out", *plan) == 2
    assert "made for another model than this DigitNet" in capsys.readouterr().err
    assert train_with(domains, tmp_path / "out", *plan, "--fraction", "0.3") == 2
    assert "leave the options of planning out" in capsys.readouterr().err


def test_weights_are_taken_but_for_a_classifier_of_other_classes():
    source = seeded_model("digitnet", classes=9, channels=1, seed=5).state_dict()
    model = seeded_model("digitnet", classes=4, channels=1, seed=6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    left = take_weights(model, source, "fc2")
    assert left == ["fc2.bias", "fc2.weight"]
    for name, tensor in model.state_dict().items():
        wanted = before if name in left else source
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("change", ["more", "less", "shape"])
def test_weights_of_another_network_are_refused(change):
    state = dict(build("digitnet", num_classes=4, in_channels=1).state_dict())
    if change == "more":
        state["conv3.weight"] = torch.zeros(1)
    elif change == "less":
        del state["conv2.weight"]
    else:
        state["conv1.weight"] = torch.zeros(4, 1, 3, 3)
    with pytest.raises(ValueError, match=r"conv[123]\.weight"):
        take_weights(build("digitnet", num_classes=4, in_channels=1), state, "fc2")


def test_a_file_that_is_no_safetensors_is_refused(domains, tmp_path, capsys):
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    assert train_with(domains, tmp_path / "out", "--weights", str(tmp_path / "w.safetensors")) == 2
    assert "no safetensors file" in capsys.readouterr().err


def test_what_is_left_out_of_weights_is_said(domains, tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    save_file(seeded_model("digitnet", classes=10, channels=1).state_dict(), path)
    options = ["--weights", str(path), "--epochs", "1", "--batch-size", "48"]
    assert train_with(domains, tmp_path / "out", *options) == 0
    assert "fc2.bias, fc2.weight are left out" in " ".join(capsys.readouterr().out.split())
