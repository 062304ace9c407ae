import re
from dataclasses import replace

import pytest

from weightfold.data import available
from weightfold.lab.declare import PRESETS, Column, Experiment, Line, Preset
from weightfold.lab.experiment import experiment, experiments, print_experiments
from weightfold.lab.measures import BEST_ACCURACY, multiply_adds
from weightfold.lab.outcomes import read_results
from weightfold.lab.variants import make_net
from weightfold.spec import parse_spec
from weightfold.train import RECIPES, Recipe

TABLES = [f"guo2020-table{number}" for number in (1, 2, 3, 6, 7, 8, 9)]
SHAPE = (3, 32, 32)


def test_every_table_is_found(capsys):
    assert set(TABLES) <= set(experiments())
    print_experiments()
    shown = capsys.readouterr().out
    assert all(name in shown for name in TABLES)
    with pytest.raises(ValueError, match=r"no experiment 'table9'; experiments: .*guo2020-table9"):
        experiment("table9")


@pytest.mark.parametrize("name", TABLES)
def test_cells_of_every_preset_can_be_made(name):
    found = experiment(name)
    built = set()
    for preset in PRESETS:
        for label, cells in found.cells(preset).items():
            assert [cell.seed for cell in cells] == list(range(found.presets[preset].seeds)), label
            built |= {(cell.model, cell.variant) for cell in cells}
            for cell in cells:
                data, _ = parse_spec(cell.data)
                assert data in available() or data == "imagenet"
    for model, variant in sorted(built):
        if name not in ("guo2020-table6", "guo2020-table3"):  # counted below; large
            net = make_net(model, variant, seed=0, num_classes=10, image_shape=SHAPE)
            assert sum(p.numel() for p in net.parameters()) > 0


def test_cells_of_the_long_runs_keep_their_folders():
    """Renamed folders would orphan hours of results."""
    few = experiment("guo2020-table9").cells("cpu")
    assert few["CK r=4"][0].folder.endswith("ck-rate-4-first-m_cifar10_seed0_0526d479fe")
    assert few["SmallNet"][0].folder.endswith("compact_cifar10_seed0_615b913ea7")
    noisy = experiment("guo2020-table7").cells("cpu")
    assert noisy["k=9, 80%: SmallNet"][0].folder == (
        "smallnet-b-kernel-size-9_compact_cifar10-corrupt-0.8-seed-0_seed0_5b6de102a1"
    )
    assert noisy["k=9, 80%: ExpandNet-CK"][0].folder.endswith("seed0_b9a8b6f6c7")


@pytest.mark.parametrize(("name", "data"), [("guo2020-table9", "cifar10"),
                                            ("guo2020-table9", "cifar100"),
                                            ("guo2020-table6", "cifar10")])  # fmt: skip
def test_parameters_are_those_printed(name, data, tmp_path):
    found = experiment(name)
    results = read_results(found, "cpu", tmp_path, data=data)
    compared = 0
    for line in found.lines:
        printed = results.published(line.label, "parameters")
        if printed:
            (count,) = results.values(line.label, "parameters").values()
            if printed[0] >= 1000:  # printed as 1.74M
                assert f"{count / 1000:.2f}" == f"{printed[0] / 1000:.2f}"
            elif line.variant.startswith("ck,rate=4") and "table9" in name:  # 187.0K
                assert f"{count:.1f}" == f"{printed[0]:.1f}"
            else:
                assert f"{count:.2f}" == f"{printed[0]:.2f}"
            compared += 1
    assert compared == {"guo2020-table9": 7, "guo2020-table6": 10}[name]


def test_multiply_adds_are_those_printed_but_for_relu_and_pooling(tmp_path):
    found = experiment("guo2020-table6")
    results = read_results(found, "cpu", tmp_path)
    relu_and_pooling = 2 * (8 * 32**2 + 16 * 16**2 + 32 * 8**2 + 64 * 4**2) / 1e6
    printed = [line.label for line in found.lines if results.published(line.label, "multiply_adds")]
    assert len(printed) == 10
    for label in printed:
        (ours,) = results.values(label, "multiply_adds").values()
        wanted, _ = results.published(label, "multiply_adds")
        assert ours + relu_and_pooling == pytest.approx(wanted, abs=0.01), label  # rounded or cut


def test_multiply_adds_do_not_depend_on_how_the_net_runs():
    nets = [
        make_net(
            "smallnet_b", f"cl,rate=2,execution={e}", seed=0, num_classes=10, image_shape=SHAPE
        )
        for e in ("fold", "chain")
    ]
    assert multiply_adds(nets[0], SHAPE) == multiply_adds(nets[1], SHAPE)


@pytest.mark.parametrize(
    ("name", "label", "column", "measure", "number"),
    [
        ("guo2020-table1", "ExpandNet-CK+FC, KD", "cifar10", "best_accuracy", (80.63, 0.31)),
        ("guo2020-table1", "ACNet", "cifar100", "best_accuracy", (47.18, 0.57)),
        ("guo2020-table2", "MobileNetV2, CL", "cifar100", "best_accuracy", (72.33, None)),
        ("guo2020-table3", "ShuffleNetV2 0.5x, ACNet", "imagenet", "best_accuracy", (52.43, None)),
        ("guo2020-table6", "CL r=8, as a chain", "cifar10", "step_time", (9.39 / 4.05, None)),
        ("guo2020-table7", "k=9, 80%: SmallNet", "cifar10", "last_error", (47.96, 1.07)),
        ("guo2020-table7", "k=5, 50%: ExpandNet-CL", "cifar10", "train_error", (54.29, 0.24)),
        ("guo2020-table8", "SmallNet, CK+FC start", "cifar10", "best_accuracy", (79.27, 0.29)),
        ("guo2020-table9", "CK r=0.75", "cifar100", "best_accuracy", (46.41, 0.52)),
    ],
)
def test_published_numbers(name, label, column, measure, number):
    (line,) = [line for line in experiment(name).lines if line.label == label]
    assert line.published[column][measure] == number


def test_cells_take_the_users_data_and_seeds():
    cells = experiment("guo2020-table7").cells("cpu", data="mnist,rgb=true,size=32", seeds=3)
    assert {cell.data for line in cells.values() for cell in line} == {
        "mnist,rgb=true,size=32,corrupt=0.8,seed=0"
    }
    assert {len(line) for line in cells.values()} == {3}
    with pytest.raises(ValueError, match=r"preset='fast'; choose smoke, cpu, paper"):
        experiment("guo2020-table7").cells("fast")
    with pytest.raises(ValueError, match=r"seeds=0: give how many"):
        experiment("guo2020-table7").cells("cpu", seeds=0)


def test_distilled_lines_have_a_teacher():
    cells = experiment("guo2020-table1").cells("paper")["SmallNet, KD"]
    (teacher,) = {cell.teacher for cell in cells}
    assert (teacher.model, teacher.variant, teacher.data) == (
        "resnet18,small_image=true",
        "compact",
        "cifar10",
    )
    assert teacher.recipe == RECIPES["teacher-cifar-resnet18"]


LINE = Line("a", "digitnet", "compact", {"x": {"best_accuracy": (1.0, None)}})
GOOD = Experiment(
    name="made-up",
    paper="nobody",
    title="nothing",
    columns=(Column("x", "X", 10, SHAPE),),
    measures=(BEST_ACCURACY,),
    lines=(LINE,),
    presets=dict.fromkeys(PRESETS, Preset({"": Recipe()}, 1, "")),
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lines": (LINE, LINE)}, "label 'a'"),
        ({"lines": (replace(LINE, published={"y": {}}),)}, "column 'y'"),
        ({"lines": (replace(LINE, published={"x": {"speed": (1.0, None)}}),)}, "measure 'speed'"),
        ({"lines": (replace(LINE, recipe="slow"),)}, "recipe 'slow'"),
        ({"lines": (replace(LINE, teacher="digitnet"),)}, "recipe 'teacher'"),
        ({"presets": {"cpu": GOOD.presets["cpu"]}}, "preset 'paper'"),
        ({"measures": (replace(BEST_ACCURACY, relative_to="b"),)}, "line 'b'"),
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(GOOD, **wrong)
