"""The files of a comparison: CSV, JSON, curves and page."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weightfold.files import write_csv, write_json
from weightfold.lab.comparison import Comparison, readings, verdicts
from weightfold.lab.measures import learning_panels
from weightfold.report.figures import learning_curves
from weightfold.report.page import Section, Table, write_page


def write_all(comparison: Comparison, folder: Path) -> None:
    """Write results.json, results.csv, runs.csv, curves.png and index.html."""
    runs = run_rows(comparison)
    write_json(
        folder / "results.json",
        {
            "configuration": comparison.configuration,
            "session": comparison.session,
            "results": [asdict(result) for result in comparison.results],
            "deployed": asdict(comparison.deployed),
            "runs": runs,
        },
    )
    write_csv(folder / "results.csv", [_flat(asdict(result)) for result in comparison.results])
    write_csv(folder / "runs.csv", runs)
    panels = learning_panels(comparison.histories)
    learning_curves(panels, folder / "curves.png", title=comparison.title)
    _write_page(comparison, folder)


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per run."""
    seeds = comparison.configuration["seeds"]
    return [
        {
            "variant": variant,
            "seed": seed,
            "epochs": len(history.rows),
            "last_accuracy": history.last_value,
            "best_accuracy": history.best_value,
            "best_epoch": history.best_epoch,
            "final_train_error": 1 - history.last(part="train_eval"),
            "seconds": history.seconds,
            "seconds_per_step": history.seconds_per_step,
        }
        for variant, histories in comparison.histories.items()
        for seed, history in zip(seeds, histories, strict=True)
    ]


def _write_page(comparison: Comparison, folder: Path) -> None:
    configuration = comparison.configuration
    recipe = ", ".join(f"{key}={value}" for key, value in configuration["recipe"].items())
    sections = [
        Section("Results", _how(comparison), table=_turned(readings(comparison))),
        Section("What this says", "\n\n".join(verdicts(comparison))),
        Section("Learning curves", image=folder / "curves.png"),
        Section(
            "The deployed network",
            "deployed/ holds the plain network as model.safetensors and model.onnx; model.json "
            "says how to feed it.",
        ),
        Section("Every run", table=_table(_percents(run_rows(comparison)))),
        Section("Recipe", recipe),
    ]
    session = "\n".join(f"{key}: {value}" for key, value in comparison.session.items())
    write_page(folder / "index.html", comparison.title, sections, footer=session)


def _how(comparison: Comparison) -> str:
    seeds = len(comparison.configuration["seeds"])
    epochs = {
        "epochs": "All variants train the same number of epochs.",
        "time": "All variants have the time of the slowest: faster ones train more epochs.",
    }
    return (
        f"Mean ± standard deviation over {seeds} seeds, of the share of test images classified "
        "right. Go by the last epoch: the best one is chosen on the test images, which flatters "
        "every variant. "
        "Differences are between runs of the same seed, in percentage points, with the 95% Student "
        f"interval of their mean. {epochs[comparison.configuration['match']]}\n\n"
        "Step times are medians of training steps of all variants taken in turn. Folding weights "
        "costs the same whatever the size of batch and images, so that its share is largest where "
        "both are small."
    )


def _percents(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "variant": row["variant"],
            "seed": str(row["seed"]),
            "last epoch, %": f"{100 * row['last_accuracy']:.2f}",
            "best epoch, %": f"{100 * row['best_accuracy']:.2f}",
            "which": str(row["best_epoch"]),
            "training error, %": f"{100 * row['final_train_error']:.2f}",
            "seconds": f"{row['seconds']:.1f}",
        }
        for row in rows
    ]


def _table(rows: list[dict[str, str]]) -> Table:
    return Table(list(rows[0]), [list(row.values()) for row in rows])


def _turned(rows: list[dict[str, str]]) -> Table:
    """A column for each of `rows`."""
    headings, *lines = zip(rows[0], *(row.values() for row in rows), strict=True)
    return Table(list(headings), [list(line) for line in lines])


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as last_mean, last_std, ..."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}_") if nested else {prefix + key: value}
    return flat
