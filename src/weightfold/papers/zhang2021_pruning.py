"""The sharing paper's explanation, measured: magnitude pruning of one layer at a time."""

from weightfold.lab.domains_pruning import PruningExperiment
from weightfold.papers._zhang2021 import PAPER
from weightfold.papers.zhang2021_sharing import TABLE1

_BACKBONES = {"smoke": ("SqueezeNet",), "cpu": ("MobileNetV2",), "paper": ("MobileNetV2",)}

PRUNING = PruningExperiment(
    name="zhang2021-pruning",
    paper=f"{PAPER}, section 6",
    title="what pruning each layer alone costs, by depth",
    nets={
        preset: {name: TABLE1.cells(preset)[f"{name}, independent"] for name in names}
        for preset, names in _BACKBONES.items()
    },
    ways=(("weights", 0.8), ("filters", 0.5)),
    images={"smoke": 20, "cpu": 100, "paper": 2000},
    differs={preset: TABLE1.presets[preset].differs for preset in _BACKBONES},
)

EXPERIMENTS = (PRUNING,)
