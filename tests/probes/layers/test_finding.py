import json
from dataclasses import replace

import pytest

from weightfold.probes.finding import read_record, write_finding
from weightfold.probes.layers.figures import robustness_by_depth
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.layers.measurements import DRAWN, Cell, Correlation, Distance
from weightfold.probes.layers.units import Unit

TRAINED = (0.02, 0.04, 0.03)


def made(rises: dict[str, tuple[float, ...]], far: dict[str, float], **fields) -> LayerReset:
    """A finding whose units raise the error at epoch 0 by so much, and went so far."""
    seeds = range(len(next(iter(rises.values()))))
    cells = [Cell("", 4, seed, None, TRAINED[seed], 0.1) for seed in seeds]
    for unit, values in rises.items():
        for seed, rise in enumerate(values):
            cells.append(Cell(unit, 0, seed, None, TRAINED[seed] + rise, None))
            cells.append(Cell(unit, 1, seed, None, TRAINED[seed] + rise / 2, 0.2))
            cells += [Cell(unit, DRAWN, seed, draw, 0.8 + 0.1 * draw, 2.0) for draw in (0, 1)]
    fields = {"bn": "keep", "batch_norms": 2} | fields
    return LayerReset(
        network="Net (12 weights)",
        data="made up",
        epochs=(0, 1, 4),
        seeds=tuple(seeds),
        units=tuple(Unit(name, (name, f"{name}.norm"), (f"{name}.w",), 3) for name in rises),
        cells=tuple(cells),
        distances=tuple(Distance(u, s, d, -d) for u, d in far.items() for s in seeds),
        chance=0.9,
        recipe={"epochs": 4},
        notes=("A note.",),
        **fields,
    )


RISES = {"a": (0.30, 0.32, 0.31), "b": (0.0, 0.01, 0.02), "c": (0.0, 0.05, 0.16)}


@pytest.fixture
def finding():
    return made(RISES, {"a": 0.1, "b": 0.3, "c": 0.2})


def test_verdicts_are_by_the_interval_over_seeds(finding):
    assert {name: finding.verdict(name) for name in RISES} == {
        "a": "critical",
        "b": "robust",
        "c": "undecided",
    }
    assert finding.critical == ("a",)
    assert (
        "1 of 3 layers is critical: a. The 3 networks do not decide it for c." in finding.headline
    )
    # Student's t of two degrees of freedom at 97.5%, std 0.01, n = 3.
    rise = finding.increase("a")
    assert rise.mean == pytest.approx(0.31) and rise.n == 3
    assert rise.high - rise.mean == pytest.approx(4.302652729911275 * 0.01 / 3**0.5)


def test_one_network_decides_by_its_value_alone():
    finding = made({"a": (0.051,), "b": (0.049,)}, {"a": 1.0, "b": 2.0})
    assert (finding.verdict("a"), finding.verdict("b")) == ("critical", "robust")
    assert finding.robustness.mean == pytest.approx(0.05) and finding.robustness.low is None
    assert "1 of 2 layers is critical: a. " in finding.headline and "1 network," in finding.headline


@pytest.mark.parametrize(
    ("last", "words"), [("b", "None of 1 layers is critical"), ("c", "surely")]
)
def test_no_layer_is_critical(last, words):
    assert words in made({last: RISES[last]}, {last: 1.0}).headline


def test_robustness_is_the_mean_rise_over_units(finding):
    by_seed = [sum(rises[seed] for rises in RISES.values()) / 3 for seed in range(3)]
    assert finding.robustness.mean == pytest.approx(sum(by_seed) / 3)
    assert finding.robustness.n == 3


def test_errors_are_means_over_draws_and_the_last_epoch_is_the_trained_network(finding):
    assert finding.errors("a", DRAWN) == pytest.approx([0.85] * 3)
    assert finding.errors("a", 4) == finding.trained == list(TRAINED)
    assert finding.errors("a", 2) is None
    with pytest.raises(ValueError, match="source=2 was not measured"):
        finding.increase("a", 2)


def test_rank_correlation_of_distance_and_rise(finding):
    # Ranks 1, 3, 2 of distance against 3, 1, 2 of the rise.
    found = finding.correlation("l2")
    assert found == Correlation(pytest.approx(-1.0), pytest.approx(0.0, abs=1e-6), 3)
    assert finding.correlation("linf").rho == pytest.approx(1.0)
    assert "-1.00 for the root mean square" in finding.meaning
    assert made(RISES, dict.fromkeys(RISES, 1.0)).correlation("l2") is None
    two = made({"a": (0.1, 0.1), "b": (0.2, 0.2)}, {"a": 1.0, "b": 2.0})
    assert two.correlation("l2") is None and "correlation" not in two.meaning


def test_a_finding_is_what_its_record_says(finding, tmp_path):
    page = write_finding(finding, tmp_path, title="Layers")
    again = LayerReset.from_record(read_record(tmp_path))
    assert again == finding
    assert json.loads((tmp_path / "result.json").read_text())["probe"] == "layer-reset"
    text = page.read_text()
    assert "batch norm keep: running statistics stay those of the trained network" in text.lower()
    assert "a + a.norm" in text and "A note." in text
    assert (tmp_path / "layer-reset.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(finding.cells)


def test_the_policy_is_told_and_absent_without_batch_norm(finding):
    assert finding.policy.startswith("batch norm keep") and finding.policy[11:] in finding.headline
    plain = replace(finding, batch_norms=0)
    assert plain.policy == "no batch norm" and "No batch norm." in plain.headline
    assert {row["bn"] for row in plain.rows()} == {""}


def test_the_figure_has_room_for_what_was_not_measured(finding, tmp_path):
    cells = tuple(c for c in finding.cells if (c.unit, c.source) != ("b", DRAWN))
    replace(finding, cells=cells).draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_robustness_by_depth_compares_one_policy(finding, tmp_path):
    path = tmp_path / "depth.png"
    plain = replace(finding, batch_norms=0, bn="source")
    robustness_by_depth({"VGG": [finding], "MLP": [plain]}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="policies keep, recalibrate"):
        robustness_by_depth({"VGG": [finding, replace(finding, bn="recalibrate")]}, path)
    with pytest.raises(ValueError, match="findings is empty"):
        robustness_by_depth({"VGG": []}, path)
