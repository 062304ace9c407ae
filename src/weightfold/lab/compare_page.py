"""The files of a comparison: CSV, JSON, curves and page."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weightfold.lab.comparison import Comparison, readings, verdicts
from weightfold.lab.figures import learning_curves
from weightfold.lab.files import write_csv
from weightfold.lab.page import Section, Table, write_page
from weightfold.train import checkpoint


def write_all(comparison: Comparison, folder: Path) -> None:
    """Write results.json, results.csv, runs.csv, curves.png and index.html."""
    runs = run_rows(comparison)
    checkpoint.write_json(
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
    learning_curves(comparison.histories, folder / "curves.png", title=comparison.title)
    _write_page(comparison, folder)


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per run."""
    seeds = comparison.configuration["seeds"]
    return [
        {
            "variant": variant,
            "seed": seed,
            "epochs": len(history.rows),
            "last_accuracy": history.last_accuracy,
            "best_accuracy": history.best_accuracy,
            "best_epoch": history.best_epoch,
            "final_train_error": history.final_train_error,
            "seconds": history.seconds,
            "seconds_per_step": history.seconds_per_step,
        }
        for variant, histories in comparison.histories.items()
        for seed, history in zip(seeds, histories, strict=True)
    ]


def _write_page(comparison: Comparison, folder: Path) -> None:
    configuration, session = comparison.configuration, comparison.session
    time = configuration["match"] == "time"
    how = (
        f"Mean ± standard deviation over {len(configuration['seeds'])} seeds, in percent of the "
        "test images. The last epoch's accuracy is the one to go by: the best epoch is chosen on "
        "the test images, which flatters all variants. Differences are in percentage points, of "
        "runs with the same seed, with the 95% Student interval of their mean. Step times are "
        "medians of training steps of all variants taken in turn. "
        + (
            "All variants have the time of the slowest one: the faster ones train more epochs."
            if time
            else "All variants train the same number of epochs."
        )
    )
    variants = readings(comparison)
    recipe = ", ".join(f"{k}={v}" for k, v in configuration["recipe"].items())
    machine = ", ".join(f"{k}: {v}" for k, v in session.items())
    runs = [{key: _short(value) for key, value in row.items()} for row in run_rows(comparison)]
    sections = [
        Section("Results", how, table=_table(variants)),
        Section("What this says", " ".join(verdicts(comparison))),
        Section("Learning curves", "Test accuracy by epoch.", image=folder / "curves.png"),
        Section(
            "The deployed network",
            "deployed/ holds the plain network as model.safetensors and model.onnx; model.json "
            "says how to feed it.",
        ),
        Section(
            "Every run",
            "Accuracies and errors are shares.",
            table=_table(runs),
        ),
        Section("Configuration", f"Recipe: {recipe}. Machine: {machine}."),
    ]
    write_page(folder / "index.html", comparison.title, sections, footer="")


def _table(rows: list[dict[str, str]]) -> Table:
    return Table(list(rows[0]), [list(row.values()) for row in rows])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as last_mean, last_std, ..."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= (
            _flat(value, f"{prefix}{key}_") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
