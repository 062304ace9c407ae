"""Data sets by name, their batches, augmentation and label corruption."""

from weightfold.data.batches import Augment as Augment
from weightfold.data.batches import Augmentation as Augmentation
from weightfold.data.batches import Batches as Batches
from weightfold.data.corruption import corrupt_labels as corrupt_labels
from weightfold.data.dataset import VOID as VOID
from weightfold.data.dataset import Dataset as Dataset
from weightfold.data.dataset import Examples as Examples
from weightfold.data.dataset import mean_and_std as mean_and_std
from weightfold.data.files import ImageFiles as ImageFiles
from weightfold.data.joint import JointAugment as JointAugment
from weightfold.data.load import load as load
from weightfold.data.pairs import Data as Data
from weightfold.data.pairs import as_dataset as as_dataset
from weightfold.data.registry import available as available
from weightfold.data.registry import list_data as list_data
from weightfold.data.registry import reader as reader
from weightfold.data.splitting import hold_out as hold_out
from weightfold.data.splitting import split as split
