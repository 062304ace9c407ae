import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Literal

import pytest

from weightfold.probes import registry
from weightfold.probes.finding import Finding
from weightfold.probes.registry import Probe, probe, probes
from weightfold.train import Recipe

RECIPE = Recipe(epochs=4)


def measure(
    model: object,
    data: object,
    *,
    bn: Literal["keep", "source"],
    share: float = 0.5,
    dims: Sequence[int] | None = None,
    shares: Mapping[str, float] | Sequence[str] = (),
    names: Sequence[str] = (),
    epochs: int = 1,
    ways: Mapping[str, object] | None = None,
    recipe: Recipe = RECIPE,
    seeds: Sequence[int] = (0,),
    folder: object = None,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    pass


@pytest.fixture
def made_up(monkeypatch) -> Probe:
    monkeypatch.setitem(sys.modules, "made_up", SimpleNamespace(measure=measure))
    found = Probe("made-up", "made_up:measure:Finding", "nothing")
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
        ("made-up,bn=keep,model=4", r"no option 'model'"),
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
