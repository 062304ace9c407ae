"""ExpandNets' tables beyond classification: 4 (YOLO-LITE, detection) and 5 (U-Net, masks)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from weightfold.lab.claims import above, all_of
from weightfold.lab.experiment import Claim, Column, Experiment, Line, Preset, Quantity
from weightfold.lab.printed import Printed
from weightfold.lab.training import Training
from weightfold.papers._guo2020 import NUMBERS, PAPER
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from weightfold.train import History

_SEEDS = 5
_SMOKE = Recipe(epochs=1, batch_size=48, lr=1e-3, schedule="constant", crop_padding=2, flip=False)


def _last(name: str, title: str) -> Quantity:
    """A share on the test set after the last epoch, in percent."""

    def of(history: "History") -> float:
        return 100 * history.last(name)

    return Quantity(f"last_{name}", f"{title}, last epoch (%)", of=of)


_WHERE = {"segment": "down*", "detect": "backbone.*"}
_LATER = {
    "segment": "down1.conv2+down[2-9]*",
    "detect": "backbone.conv[2-5]",
}
"""Of the expanded layers, all but the network's first."""


def _lines(runs: Mapping[str, Training], table: str, names: Mapping[str, str]) -> tuple[Line, ...]:
    """The plain network, its expansion, and, at cpu, that of all layers but the first.

    Args:
        runs: Preset -> training of the plain network.
        table: Of the printed numbers.
        names: Quantity -> its cell.
    """
    task = next(iter(runs.values())).task.partition(",")[0]
    plain = "U-Net" if task == "segment" else "YOLO-LITE"

    def expanded(where: str) -> dict[str, Training]:
        variant = f"cl,rate=4,where={where}"
        return {preset: replace(run, variant=variant) for preset, run in runs.items()}

    def printed(row: str) -> dict[str, Printed]:
        return {key: NUMBERS.cell(table, row, cell) for key, cell in names.items()}

    ablation = {"cpu": expanded(_LATER[task])["cpu"]}
    return (
        Line(plain, runs, printed(plain)),
        Line("ExpandNet-CL", expanded(_WHERE[task]), printed("ExpandNet-CL")),
        Line("ExpandNet-CL, first layer plain", ablation, note="An ablation of ours."),
    )


_UNET = Recipe(epochs=30, batch_size=8, lr=0.05, schedule="cosine", crop_padding=8)
_CITYSCAPES = "cityscapes"
_TABLE5_RUNS = {
    "smoke": Training("unet,width=2,depth=2", "compact", "digit_masks", _SMOKE, task="segment"),
    "cpu": Training(
        "unet,width=8,depth=3,batch_norm=true",
        "compact",
        "camvid,height=90,width=120",
        _UNET,
        task="segment",
    ),
    "paper": Training(
        "unet",
        "compact",
        f"{_CITYSCAPES},height=512,width=1024",
        Recipe(epochs=100, batch_size=4, lr=1e-8, schedule="constant", crop_padding=0),
        task="segment,summed=true",
    ),
}

TABLE5 = Experiment(
    name="guo2020-table5",
    paper=f"{PAPER}, Table 5",
    title="U-Net against its expansion (CL, r = 4) in the contracting path",
    columns=(
        Column(
            _CITYSCAPES,
            "Cityscapes",
            19,
            (3, 512, 1024),
            "no data here; run the preset paper with data='cityscapes,path=FOLDER', where FOLDER "
            "has leftImg8bit/ and gtFine/.",
        ),
    ),
    measures=(
        _last("miou", "mean IoU"),
        _last("recall", "mean recall"),
        _last("precision", "mean precision"),
    ),
    lines=_lines(
        _TABLE5_RUNS,
        "Table 5",
        {"last_miou": "mIOU", "last_recall": "mRec", "last_precision": "mPrec"},
    ),
    presets={
        "smoke": Preset(
            1,
            "Everything: one epoch on scenes of scikit-learn's digits. This preset only shows that "
            "the experiment runs.",
            comparable=False,
        ),
        "cpu": Preset(
            _SEEDS,
            "CamVid (367 training images of 11 classes, tested on 233) at 90 x 120 pixels, not "
            "Cityscapes. U-Net with 8 channels at first, three halvings and batch norm; 30 epochs "
            "of 46 steps of 8 images, SGD with momentum 0.9, rate 0.05 to 0 by a cosine, and the "
            "mean pixel loss. 5 seeds. The sizes were chosen by a short run of the plain network. "
            "The line whose first layer stays plain is ours; it was chosen before any of this was "
            "run.",
            comparable=False,
            needs="CamVid in the data folder",
        ),
        "paper": Preset(
            3,
            "The paper says SGD, momentum 0.9 and rate 1e-8, which fits a loss summed over the "
            "pixels; images of 512 x 1024, batches of 4, 100 epochs and the flip are ours, for it "
            "does not print them. 3 seeds, where it seems to print one run. Never run: there is "
            "no Cityscapes here.",
            data=_CITYSCAPES,
            needs="Cityscapes: data='cityscapes,path=FOLDER'",
        ),
    },
    claims=(
        Claim(
            "CL in the contracting path makes U-Net better by all three measures",
            all_of(
                *(
                    above("ExpandNet-CL", "U-Net", f"last_{name}")
                    for name in ("miou", "recall", "precision")
                )
            ),
        ),
    ),
    baseline="U-Net",
    notes="Transposed convolutions and the expansive path stay as they are, as in the paper.",
)


def _yolo(data: str) -> Training:
    recipe = Recipe(
        epochs=80, batch_size=16, lr=4e-3, schedule="cosine", clip_norm=20.0, crop_padding=12
    )
    return Training(
        "yolo_lite,width=8,batch_norm=true",
        "compact",
        f"{data},height=128,width=128",
        recipe,
        task="detect",
    )


_VOC = "voc0712"
_TABLE4_RUNS = {
    "smoke": Training("yolo_lite,width=2", "compact", "digit_boxes", _SMOKE, task="detect"),
    "cpu": _yolo("bccd"),
    "paper": Training(
        "yolo_lite",
        "compact",
        f"{_VOC},height=224,width=224",
        Recipe(
            epochs=160,
            batch_size=64,
            lr=1e-3,
            weight_decay=5e-4,
            schedule="step",
            milestones=(60, 90),
            warmup_epochs=1,
            crop_padding=22,
        ),
        task="detect",
    ),
}


def _on_cards() -> tuple[Line, ...]:
    lines = _lines({"cpu": _yolo("cards")}, "Table 4", {})
    return tuple(replace(line, label=f"cards: {line.label}") for line in lines)


TABLE4 = Experiment(
    name="guo2020-table4",
    paper=f"{PAPER}, Table 4",
    title="YOLO-LITE against its expansion (CL, r = 4) in the backbone",
    columns=(
        Column(
            _VOC,
            "PASCAL VOC2007",
            20,
            (3, 224, 224),
            "no data here; run the preset paper with data='voc0712,path=VOCdevkit', a folder that "
            "has VOC2007/ and VOC2012/.",
        ),
    ),
    measures=(
        _last("map50", "mAP at IoU 0.5"),
        _last("map50_voc07", "mAP at IoU 0.5, VOC2007's 11 points"),
        _last("map", "mAP, IoU 0.5 to 0.95"),
    ),
    lines=(
        *_lines(_TABLE4_RUNS, "Table 4", {"last_map50_voc07": "mAP"}),
        *_on_cards(),
        Line(
            "YOLO-LITE, its authors",
            published={
                "last_map50_voc07": NUMBERS.cell("Huang et al. 2018", "YOLO-LITE", "mAP"),
            },
            not_run="the number that YOLO-LITE's authors print of the same network and data: it is "
            "above that of ExpandNets' baseline, and above that of its expansion.",
        ),
    ),
    presets={
        "smoke": Preset(
            1,
            "Everything: one epoch on scenes of scikit-learn's digits. This preset only shows that "
            "the experiment runs.",
            comparable=False,
        ),
        "cpu": Preset(
            _SEEDS,
            "BCCD (205 training images of blood cells, tested on 72) and cards (296 and 67 "
            "photographs of playing cards) at 128 x 128 pixels, not VOC. YOLO-LITE with half its "
            "channels and batch norm; 80 epochs of 13 and 19 steps of 16 images, SGD with "
            "momentum 0.9, rate 0.004 to 0 by a cosine, gradients cut at norm 20. 5 seeds. The "
            "rate was chosen by short runs of the plain network on BCCD, judged on its test "
            "images. The lines whose first layer stays plain are ours; they were chosen before any "
            "of this was run.",
            comparable=False,
            needs="BCCD and cards in the data folder",
        ),
        "paper": Preset(
            3,
            "Trained as YOLOv2 by its authors' description (160 epochs, rate 0.001 divided by 10 "
            "after 60 and 90, decay 0.0005, batches of 64), from scratch at 224 x 224: the paper "
            "says 'the standard YOLO fashion'. No pretraining on ImageNet, images moved by at most "
            "a tenth. 3 seeds, where it seems to print one run. Never run: there is no VOC here.",
            data=_VOC,
            needs="VOC2007 and VOC2012: data='voc0712,path=VOCdevkit'",
        ),
    },
    claims=(
        Claim(
            "CL in the backbone makes YOLO-LITE better",
            all_of(
                above("ExpandNet-CL", "YOLO-LITE", "last_map50"),
                above("cards: ExpandNet-CL", "cards: YOLO-LITE", "last_map50"),
            ),
        ),
    ),
    notes="The claim is judged by mAP at IoU 0.5 of all recalls; the printed numbers stand beside "
    "VOC2007's 11 points, which was customary for that test set. The paper does not say which it "
    "took.",
)

EXPERIMENTS = (TABLE4, TABLE5)
