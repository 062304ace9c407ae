import base64
import csv
import re
from html.parser import HTMLParser

import pytest

from weightfold.files import write_csv
from weightfold.report.figures import learning_curves
from weightfold.report.page import Section, Table, write_page

PNG = b"\x89PNG\r\n\x1a\n"


class Reader(HTMLParser):
    """Collects text of cells and paragraphs, and addresses of anything loaded."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.addresses, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)


def test_page_holds_everything_and_escapes_it(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(PNG + b"rest")
    table = Table(["variant", "accuracy (%)"], [["<script>alert(1)</script>", "70.1 ± 0.2"]])
    path = tmp_path / "sub" / "index.html"
    sections = [Section("First & last", "one <b>\n\ntwo", table, image), Section("Empty")]
    write_page(path, "A < B", sections, footer="commit abc\nmachine")
    page = Reader(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags and "b" not in page.tags
    for text in ("A < B", "one <b>", "two", "<script>alert(1)</script>", "70.1 ± 0.2", "machine"):
        assert text in page.texts
    (address,) = page.addresses
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == PNG + b"rest"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_numbers_are_flush_right(tmp_path):
    cells = ["12", "-0.31", "+1.5 ± 0.2", "66,186", "compact", "3x3", "", "1.10 [0.2, 1.9]"]
    write_page(tmp_path / "x.html", "t", [Section("s", "", Table(cells, [cells]))], footer="")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert re.findall(r'<td class="number">(.*?)</td>', text) == cells[:4]


def test_an_image_that_is_missing_leaves_the_old_page(tmp_path):
    path = tmp_path / "x.html"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        write_page(path, "t", [Section("s", image=tmp_path / "no.png")], footer="")
    assert path.read_text() == "old"


def test_ragged_table_is_refused():
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table(["a", "b"], [["1"]])


def test_learning_curves_draw_mean_and_spread(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn, bands = [], []
    plot, fill = Axes.plot, Axes.fill_between
    monkeypatch.setattr(
        Axes, "plot", lambda self, x, y, **o: drawn.append((list(x), y)) or plot(self, x, y, **o)
    )
    monkeypatch.setattr(
        Axes,
        "fill_between",
        lambda self, x, a, b, **o: bands.append((a, b)) or fill(self, x, a, b, **o),
    )
    runs = {"accuracy (%)": {"compact": [[25, 50], [75]], "none": []}}
    learning_curves(runs, tmp_path / "sub" / "c.png", title="t")
    assert (tmp_path / "sub" / "c.png").read_bytes().startswith(PNG)
    assert drawn == [([1, 2], [50, 50])]
    spread = 25 * 2**0.5  # sample std of 25 and 75
    assert bands[0][0] == pytest.approx([50 - spread, 50])
    assert bands[0][1] == pytest.approx([50 + spread, 50])
    with pytest.raises(ValueError, match="panels"):
        learning_curves({"accuracy (%)": {"none": []}}, tmp_path / "d.png", title="t")


def test_a_figure_is_an_svg_in_the_page_and_a_png_beside_it(tmp_path):
    lines = {"accuracy (%)": {"compact": [[25, 50]]}}
    for name in ("a.png", "again.png"):
        learning_curves(lines, tmp_path / name, title="t")
    write_page(tmp_path / "x.html", "t", [Section("s", image=tmp_path / "a.png")], footer="")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<svg" in text and "data:image" not in text and "<?xml" not in text
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()


def test_csv_has_the_columns_of_all_rows(tmp_path):
    write_csv(tmp_path / "r.csv", [{"a": 1, "b": None}, {"a": "x,y", "c": 2.5}])
    with (tmp_path / "r.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"a": "1", "b": "", "c": ""},
            {"a": "x,y", "b": "", "c": "2.5"},
        ]
