"""The pages in results/ can be written again from their results.json, with the same numbers.

So can those of the version before, of which `before/` holds two.
"""

import base64
import html
import json
import re
import shutil
from pathlib import Path

import pytest

from weightfold.lab.kept import read_kept
from weightfold.lab.results import read_results
from weightfold.lab.run import slug
from weightfold.lab.running import report
from weightfold.papers import experiment, experiments
from weightfold.report.numbers import interval, number

RESULTS = Path(__file__).parents[2] / "results"
BEFORE = Path(__file__).with_name("before")
FILES = sorted(file for root in (RESULTS, BEFORE) for file in root.glob("*/*/results.json"))


def name_of(file: Path) -> str:
    """Of a results.json: "before/guo2020-table9"."""
    return "/".join((file.parts[-4], file.parts[-3]))


def rows(written: dict):
    """(line, measure, value, std, low, published) of a results.json of the version before."""
    for row in written.get("results", ()):
        if "domain" not in row:
            value = row.get("value", row.get("mean"))
            published = row.get("published_value", row.get("published_mean"))
            yield row["line"], row["measure"], value, row.get("std"), row.get("low"), published
            continue
        mean = row["domain"] == "mean"
        last = "accuracy" if mean else f"accuracy/{row['domain']}"
        best = "best_accuracy" if mean else f"best/{row['domain']}"
        yield row["line"], last, row["last_mean"], row["last_std"], None, row["published"]
        yield row["line"], best, row["best_mean"], row["best_std"], None, None


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_numbers_are_those_that_were_written(file):
    written = json.loads(file.read_text(encoding="utf-8"))
    kept = read_kept(file)
    name, preset = kept.asked["name"], kept.asked["preset"]
    results = read_results(experiment(name), preset, Path("nowhere"), kept=kept)
    finished = sum(run.finished for run in (*kept.runs.values(), *kept.pruned.values()))
    missing = sum(map(len, results.outcomes.values())) - len(results.missing)
    assert finished == missing > 0
    compared = 0
    for line, measure, value, std, low, published in rows(written):
        found, printed = results.estimate(line, measure), results.published(line, measure)
        assert (found is None) == (value is None), (line, measure)
        if found is not None:
            assert found.value == pytest.approx(value, rel=1e-9)
            assert found.std == pytest.approx(std) and found.low == pytest.approx(low)
            compared += 1
        if published is not None:
            assert printed.value == pytest.approx(published, abs=5e-4)  # rounded then
    assert compared or name == "zhang2021-pruning"


def test_drops_of_pruning_are_those_that_were_written():
    file = BEFORE / "zhang2021-pruning" / "cpu" / "results.json"
    weights, filters = json.loads(file.read_text(encoding="utf-8"))["claims"]
    found = experiment("zhang2021-pruning")
    results = read_results(found, "cpu", Path("nowhere"), kept=read_kept(file))
    for claim, unit in ((weights, "weights"), (filters, "filters")):
        for key, name in (("bottom", "bottom_half_drop"), ("top", "top_half_drop"),
                          ("rank", "rank_correlation_with_depth")):  # fmt: skip
            ours = results.estimate("MobileNetV2", f"{key}/{unit}").value
            assert ours == pytest.approx(claim[name])
        assert results.estimate("MobileNetV2", f"redundant/{unit}").value == 100
        difference = results.difference("MobileNetV2", "MobileNetV2", f"bottom/{unit}")
        assert difference.n == 3


CLAIMED = (
    *("held", "clear", "against", "cells", "held_best_epoch", "paper_held", "paper_cells"),
    *("difference", "difference_best_epoch", "paper_difference"),
)


def told(written: dict):
    """(where, value) of every number and text of claims and lines of the version before."""
    for claim in written["claims"]:
        name = claim.get("claim", claim.get("text", ""))
        for key in CLAIMED:
            if "comparison" in claim and (claim["paper_cells"] or not key.startswith("paper")):
                yield name, claim["comparison"], key, claim[key]
    for line, of in written.get("lines", {}).items():
        for key, value in of.items():
            yield line, "", key, value


def found_again(new: dict, name: str, comparison: str, key: str):
    """The same of a results.json of this version."""
    if not any(claim["text"] == name for claim in new["claims"]):
        return new["lines"][name][key]
    claim = next(claim for claim in new["claims"] if claim["text"] == name)
    (one,) = [
        one
        for one in (*claim["comparisons"], *filter(None, [claim["together"]]))
        if one["text"].startswith(comparison or "all together")
        or (not comparison and len(claim["comparisons"]) == 1)
    ]
    counts, best = one["counts"], "_best_epoch" if key.endswith("_best_epoch") else ""
    if not key.startswith("difference"):
        return counts[key]
    if counts[f"difference{best}"] is None:
        return "not run"
    low, high = counts[f"low{best}"], counts[f"high{best}"]
    mean = number(counts[f"difference{best}"], signed=True)
    return mean if low is None else f"{mean}, 95% {interval(low, high, signed=True)}"


def words(page: Path) -> str:
    """What a page says, without markup."""
    markup = re.sub(
        "<(svg|style).*?</\\1>|<img[^>]*>", "", page.read_text("utf-8"), flags=re.DOTALL
    )
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", markup)).split())


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_pages_written_again_lose_nothing(file, tmp_path):
    root = file.parents[2]
    shutil.copytree(file.parents[1], tmp_path / file.parents[1].name)
    folder = tmp_path / file.relative_to(root).parent
    before = list(folder.rglob("*.png"))
    (page,) = report(tmp_path, experiments())
    assert all(path.exists() for path in before)
    written = json.loads(file.read_text(encoding="utf-8"))
    new = json.loads((folder / file.name).read_text(encoding="utf-8"))
    for where, comparison, key, value in told(written):
        found = found_again(new, where, comparison, key)
        if isinstance(value, float):
            assert found == pytest.approx(value, abs=1e-9), (where, comparison, key)
        elif key.startswith("difference"):
            assert value.startswith(found), (where, comparison, key)
        else:
            assert found == value, (where, comparison, key)
    text = words(page)
    for claim in written["claims"]:
        assert claim.get("text", "").split(" A small sample")[0] in text
    old_page = file.with_name("index.html")
    old = old_page.read_text("utf-8") if old_page.exists() else ""
    kept = read_kept(file)
    gone = {line for (line, _), run in kept.runs.items() if run.finished and run.record is None}
    for line in gone:
        figure = folder / "lines" / f"{slug(line, '-.')}.png"
        if figure.exists():
            shown = base64.b64encode(figure.read_bytes()).decode()
            assert shown in page.read_text("utf-8")
        for section in re.findall(
            f"<h2>{re.escape(html.escape(line))}</h2>(.*?)</section>", old, re.DOTALL
        ):
            for _, part in re.findall(r"<(p|td|th)(?: [^>]*)?>(.*?)</\1>", section, re.DOTALL):
                assert " ".join(html.unescape(part).split()) in text


@pytest.mark.parametrize("name", ["li2018-direct", "zhang2021-figure2"])
def test_pages_written_twice_are_the_same(name, tmp_path):
    shutil.copytree(RESULTS / name, tmp_path / name)
    (page,) = report(tmp_path, experiments())
    once = page.read_text(encoding="utf-8").splitlines()
    report(tmp_path, experiments())
    again = page.read_text(encoding="utf-8").splitlines()
    assert [x for x in again if "Page written" not in x] == [
        x for x in once if "Page written" not in x
    ]


def test_other_settings_are_not_taken_for_these(tmp_path):
    file = tmp_path / "results.json"
    shutil.copy(BEFORE / "guo2020-table9" / "cpu" / "results.json", file)
    changed = json.loads(file.read_text(encoding="utf-8"))
    changed["cells"][0]["recipe"]["lr"] = 0.5
    file.write_text(json.dumps(changed), encoding="utf-8")
    results = read_results(experiment("guo2020-table9"), "cpu", tmp_path, kept=read_kept(file))
    assert [run.seed for run in results.missing] == [0]


@pytest.mark.parametrize(("content", "message"), [("{", "damaged"), ("[]", "list where an object"),
                                                  ('{"a": 1}', "'asked'")])  # fmt: skip
def test_other_files_are_refused(content, message, tmp_path):
    (tmp_path / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_kept(tmp_path / "results.json")


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [1]},
        {"cells": {}},
        {"cells": [{"line": "compact"}]},
        {"results": [{"line": "compact", "measure": "best_accuracy", "value": "71", "n": 3}]},
        {"results": [{"measure": "best_accuracy", "value": 71.0, "n": 3}]},
        {"claims": [{"text": "x", "holds": "surely", "numbers": ""}]},
        {"claims": [{"text": "x"}]},
        {"details": {"compact": {"text": "x", "columns": "no", "rows": []}}},
        {"claims": [{"text": "x", "comparisons": [{"judged": "holds", "code": 1}]}]},
    ],
)
def test_entries_of_another_form_are_refused_by_the_file(change, tmp_path):
    path = tmp_path / "results.json"
    written = json.loads((BEFORE / "guo2020-table9" / "cpu" / path.name).read_text())
    path.write_text(json.dumps(written | change), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path} is damaged"):
        read_kept(path)


@pytest.mark.parametrize("history", [{}, {"rows": []}, {"rows": [{"epoch": 1}], "selection": "x"}])
def test_records_of_another_form_are_refused_by_the_file(history, tmp_path):
    path = tmp_path / "results.json"
    written = json.loads((BEFORE / "guo2020-table9" / "cpu" / path.name).read_text())
    for entry in written["cells"]:
        entry["history"] = history
    path.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path} is damaged"):
        read_results(experiment("guo2020-table9"), "cpu", tmp_path, kept=read_kept(path))


def test_changed_numbers_are_seen(tmp_path):
    shutil.copytree(RESULTS / "guo2020-table9", tmp_path / "guo2020-table9")
    report(tmp_path, experiments())
    path = tmp_path / "guo2020-table9" / "cpu" / "results.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("71.", "72."), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path} .*sha256"):
        report(tmp_path, experiments())
