"""Images with masks: CamVid, folders, and the layouts of PASCAL VOC and Cityscapes."""

from pathlib import Path

from weightfold.data.dataset import VOID, Dataset
from weightfold.data.decode import ENDINGS
from weightfold.data.registry import reader
from weightfold.data.scenes import Pair, known, scenes

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The 19 classes that are judged, in the order of their training numbers, and their label numbers
in *_gtFine_labelIds.png; all other labels, up to 33, are void."""


@reader("camvid", "CamVid/{train,val,test}/*.png (or .jpg) with masks of the same names in *annot/")
def camvid(root: Path, *, height: int | None = None, width: int | None = None) -> Dataset:
    """CamVid street scenes with masks of 11 classes (SegNet's split: 367, 101, 233 images)."""
    parts = _folders(root / "CamVid")
    return scenes("camvid", parts, CAMVID, height=height, width=width, numbers=known(11, void=11))


@reader("masks")
def masks(
    *,
    path: str,
    classes: int | None = None,
    void: int = VOID,
    height: int | None = None,
    width: int | None = None,
) -> Dataset:
    """Images in train/, test/ and perhaps val/, masks in trainannot/, ... or masks/train/, ...

    A mask has the name of its image, but for the ending, and holds class numbers from 0. Their
    names are the lines of classes.txt, where there is one; else `classes` says how many there are.
    """
    home = Path(path).expanduser()
    listed = home / "classes.txt"
    if listed.is_file():
        names = listed.read_text(encoding="utf-8").split("\n")
        names = [name.strip() for name in names if name.strip()]
        if classes not in (None, len(names)):
            raise ValueError(f"classes={classes}, but {listed} has {len(names)} names")
    elif classes is None:
        raise ValueError(f"{listed} is missing; add classes=N, the number of classes")
    else:
        names = [str(label) for label in range(classes)]
    if not 0 < len(names) < VOID:
        raise ValueError(f"classes={len(names)}: masks have 1 to {VOID - 1} classes")
    parts = _folders(home)
    return scenes(
        home.name, parts, names, height=height, width=width, numbers=known(len(names), void)
    )


@reader("voc_masks")
def voc_masks(*, path: str, height: int | None = None, width: int | None = None) -> Dataset:
    """PASCAL VOC's layout: JPEGImages, SegmentationClass, ImageSets/Segmentation/{train,val}.txt.

    The 21 classes of VOC 2012, or the lines of classes.txt in the folder; 255 is void. The test set
    is val.txt, whose masks are public.
    """
    home = Path(path).expanduser()
    listed = home / "classes.txt"
    names = listed.read_text(encoding="utf-8").split() if listed.is_file() else VOC
    parts: dict[str, list[Pair]] = {}
    for part, split in (("train", "train"), ("test", "val")):
        stems = _lines(home / "ImageSets" / "Segmentation" / f"{split}.txt")
        parts[part] = [
            _existing(
                home / "JPEGImages" / f"{stem}.jpg", home / "SegmentationClass", f"{stem}.png"
            )
            for stem in stems
        ]
    return scenes(home.name, parts, names, height=height, width=width, numbers=known(len(names)))


@reader("cityscapes")
def cityscapes(*, path: str, height: int | None = None, width: int | None = None) -> Dataset:
    """Cityscapes' layout: leftImg8bit/{train,val}/CITY/ and gtFine/{train,val}/CITY/; 19 classes.

    Masks are *_gtFine_labelIds.png. The test set is val, whose masks are public.
    """
    home = Path(path).expanduser()
    parts: dict[str, list[Pair]] = {}
    for part, split in (("train", "train"), ("test", "val")):
        top = home / "leftImg8bit" / split
        files = sorted(top.glob("*/*_leftImg8bit.png"))
        if not files:
            raise FileNotFoundError(f"{top} holds no CITY/*_leftImg8bit.png")
        parts[part] = [
            _existing(
                file,
                home / "gtFine" / split / file.parent.name,
                file.name.replace("_leftImg8bit", "_gtFine_labelIds"),
            )
            for file in files
        ]
    numbers = dict.fromkeys(range(34), VOID)
    numbers |= {number: label for label, number in enumerate(CITYSCAPES.values())}
    return scenes("cityscapes", parts, (*CITYSCAPES,), height=height, width=width, numbers=numbers)


def _folders(home: Path) -> dict[str, list[Pair]]:
    """The files of each part there is."""
    parts: dict[str, list[Pair]] = {}
    for part, split in (("train", "train"), ("test", "test"), ("validation", "val")):
        top = next((f for f in (home / split, home / "images" / split) if f.is_dir()), None)
        if top is None and part == "validation":
            continue
        if top is None:
            raise FileNotFoundError(f"{home / split} does not exist; images are in it")
        below = next(
            (f for f in (home / f"{split}annot", home / "masks" / split) if f.is_dir()), None
        )
        if below is None:
            raise FileNotFoundError(
                f"neither {home / f'{split}annot'} nor {home / 'masks' / split} exists; the masks "
                f"of {top} are in one of them"
            )
        known_masks = {file.stem: file for file in below.iterdir() if _is_image(file)}
        images = sorted(file for file in top.iterdir() if _is_image(file))
        if not images:
            raise FileNotFoundError(f"{top} holds no image")
        for file in images:
            if file.stem not in known_masks:
                raise FileNotFoundError(f"{file} has no mask {below / file.stem}.png")
        parts[part] = [(file, known_masks[file.stem]) for file in images]
    return parts


def _is_image(file: Path) -> bool:
    return not file.name.startswith(".") and file.name.lower().endswith(ENDINGS)


def _existing(image: Path, below: Path, mask: str) -> Pair:
    for file in (image, below / mask):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing")
    return image, below / mask


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; it lists the images, one a line")
    lines = [
        line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    if not lines:
        raise ValueError(f"{file} lists no image")
    return lines
