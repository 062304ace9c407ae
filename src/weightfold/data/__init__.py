"""Image sets by name, their batches, augmentation and label corruption."""

from weightfold.data.batches import Augment as Augment
from weightfold.data.batches import Batches as Batches
from weightfold.data.corruption import corrupt_labels as corrupt_labels
from weightfold.data.dataset import Dataset as Dataset
from weightfold.data.dataset import ImageSet as ImageSet
from weightfold.data.dataset import mean_and_std as mean_and_std
from weightfold.data.files import ImageFiles as ImageFiles
from weightfold.data.load import load as load
from weightfold.data.registry import available as available
from weightfold.data.registry import reader as reader
from weightfold.data.samples import Data as Data
from weightfold.data.samples import Examples as Examples
from weightfold.data.samples import Samples as Samples
from weightfold.data.samples import as_samples as as_samples
from weightfold.data.splitting import split as split
