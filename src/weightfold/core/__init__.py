"""The mechanism: a chart computes tensors from coordinates, `Charted` runs a model with them."""

from weightfold.core.chart import Chart as Chart
from weightfold.core.chart import Example as Example
from weightfold.core.charted import Charted as Charted
from weightfold.core.select import Where as Where
from weightfold.core.select import select as select
from weightfold.core.select import select_tensors as select_tensors
