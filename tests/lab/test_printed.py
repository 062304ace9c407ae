"""Printed numbers, read from TOML."""

import pytest

from weightfold.lab.printed import Printed, mean_of, read_paper

TEXT = """
["Table 1"]
net = { accuracy = { value = 78.63, spread = 0.41 }, epoch = { value = 4.05 } }
"net, twice" = { accuracy = { value = 80.0, bound = ">", unused = "a guess" } }
"""


@pytest.fixture
def paper(tmp_path):
    (tmp_path / "someone2020.toml").write_text(TEXT, encoding="utf-8")
    return read_paper(tmp_path / "someone2020.toml")


def test_numbers_know_where_they_are_printed(paper):
    found = paper.cell("Table 1", "net", "accuracy")
    assert (found.value, found.spread, found.bound, found.source) == (78.63, 0.41, "", "Table 1")
    assert found.cells == ("someone2020, Table 1, net, accuracy",)
    assert paper.cell("Table 1", "net, twice", "accuracy").bound == ">"
    assert len(paper.cells) == 3
    assert paper.unused == {"someone2020, Table 1, net, twice, accuracy": "a guess"}


def test_numbers_worked_out_remember_what_from(paper):
    epoch = paper.cell("Table 1", "net", "epoch")
    ratio = Printed(9.39, cells=("x",)).over(epoch)
    assert ratio.value == 9.39 / 4.05 and ratio.cells == ("x", *epoch.cells)
    percent = Printed(0.8536, 0.01, cells=("x",)).times(100)
    assert (percent.value, percent.spread, percent.cells) == (85.36, 1.0, ("x",))
    assert mean_of([epoch, Printed(1.95, cells=("x",))]).value == 3.0
    assert mean_of([epoch, Printed(1.95, cells=("x",))]).cells == (*epoch.cells, "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (("Table 2", "net", "accuracy"), "'Table 2'; there are Table 1"),
        (("Table 1", "nets", "accuracy"), "'nets'; there are net, net, twice"),
        (("Table 1", "net", "speed"), "'speed'; there are accuracy, epoch"),
    ],
)
def test_what_is_not_printed_is_told(paper, name, message):
    with pytest.raises(KeyError, match=message):
        paper.cell(*name)


@pytest.mark.parametrize("entry", ["78.63", "{ spread = 1.0 }", "{ value = 1.0, std = 2.0 }",
                                   '{ value = 1.0, bound = "below" }'])  # fmt: skip
def test_a_cell_that_is_no_number_is_refused(entry, tmp_path):
    (tmp_path / "x.toml").write_text(f'["Table 1"]\nnet = {{ a = {entry} }}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="x, Table 1, net, a"):
        read_paper(tmp_path / "x.toml")
