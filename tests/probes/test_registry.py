import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import signature
from types import SimpleNamespace
from typing import Literal, get_args, get_type_hints

import pytest
import torch

from weightfold.probes import registry
from weightfold.probes.finding import Finding
from weightfold.probes.models import labelled
from weightfold.probes.registry import Probe, probe, probes
from weightfold.tasks.registry import as_task, build
from weightfold.train import Recipe

RECIPE = Recipe(epochs=4)


@dataclass(frozen=True, kw_only=True)
class Options:
    bn: Literal["keep", "source"]
    share: float = 0.5
    dims: Sequence[int] | None = None
    shares: Mapping[str, float] | Sequence[str] = ()
    names: Sequence[str] = ()
    epochs: int = 1
    ways: Mapping[str, object] | None = None


def measure(
    net: object,
    data: object,
    *,
    seeds: int | Sequence[int] = 1,
    folder: object = None,
    device: str = "auto",
    progress: bool = True,
    recipe: Recipe = RECIPE,
    **options: object,
) -> None:
    pass


@pytest.fixture
def made_up(monkeypatch) -> Probe:
    monkeypatch.setitem(sys.modules, "made_up", SimpleNamespace(measure=measure, Options=Options))
    found = Probe("made-up", "made_up:measure:Finding:Options", "nothing")
    monkeypatch.setattr(registry, "probes", lambda: {"made-up": found})
    return found


def read(text: str) -> dict:
    found, texts = probe(text)
    return found.read(texts)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("share=1", {"share": 1.0}),
        ("dims=5", {"dims": (5,)}),
        ("dims=5+10", {"dims": (5, 10)}),
        ("dims=none", {"dims": None}),
        ("names=true", {"names": ("true",)}),
        ("names=true+1+gaussian", {"names": ("true", "1", "gaussian")}),
        ("shares=fc1:0.5+fc2:1", {"shares": ("fc1:0.5", "fc2:1")}),
        ("lr=0.5,batch_size=9", {"recipe": replace(RECIPE, lr=0.5, batch_size=9)}),
        (
            "schedule=step,milestones=2",
            {"recipe": replace(RECIPE, schedule="step", milestones=(2,))},
        ),
        ("clip_norm=none", {"recipe": RECIPE}),
        ("epochs=3", {"epochs": 3}),  # the probe's own comes before its recipe's
    ],
)
def test_options_are_read(text, wanted):
    assert read(",".join(filter(None, ("made-up,bn=keep", text)))) == {"bn": "keep"} | wanted


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("made-down", r"no probe 'made-down'; did you mean 'made-up'\? probes: made-up"),
        ("made-up", r"'made-up' needs the option bn \(keep, source\); write 'made-up,bn=\.\.\.'"),
        ("made-up,bn=keep,dim=4", r"no option 'dim'; did you mean 'dims'\? .*lr.*share"),
        ("made-up,bn=keep,net=4", r"no option 'net'"),
        ("made-up,bn=keep,ways=4", r"no option 'ways'"),
        ("made-up,bn=keep,share=half", r"share='half' is not of type float"),
        ("made-up,bn=keep,momentum=2", r"momentum=2\.0 in the recipe"),
    ],
)
def test_wrong_options_are_told(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_seeds(made_up):
    assert made_up.over(3) == {"seeds": range(3)}
    with pytest.raises(ValueError, match=r"seeds=0: give how many"):
        made_up.over(0)


@pytest.mark.parametrize("name", probes())
def test_every_probe_is_what_the_registry_says(name):
    found = probes()[name]
    assert callable(found.measure) and issubclass(found.finding, Finding)
    assert found.finding.probe == name
    assert found.recipe is None or isinstance(found.recipe, Recipe)
    assert found.over(2)
    parameters = signature(found.measure).parameters
    assert list(parameters)[: 2 if found.networks else 0] == (
        ["net", "data"] if found.networks else []
    )
    assert parameters["seeds"].default >= 1 and len(parameters) <= 8
    assert "device" not in parameters or parameters["device"].default == "auto"
    assert found.options


def test_probes_take_a_task_of_class_labels():
    x, y = torch.randn(8, 2), torch.arange(8) % 2
    data = ((x, y), (x, y))
    assert labelled(as_task(data), "").digest == labelled(data, "").digest
    with pytest.raises(TypeError, match=r"data is the task 'regress'.*it counts"):
        labelled(build("regress", ((x, x), (x, x))), "it counts")


@pytest.mark.parametrize("name", probes())
def test_options_are_taken_as_one_or_field_by_field(name):
    """The keywords that a type checker knows are the fields of the dataclass."""
    keywords = get_args(get_type_hints(probes()[name].measure)["options"])[0]
    hints = get_type_hints(keywords)
    kind = hints.pop("options")
    assert is_dataclass(kind) and kind.__dataclass_params__.frozen
    assert hints == get_type_hints(kind)
    assert {field.name for field in fields(kind)} == hints.keys()
