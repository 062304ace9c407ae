"""The verb of the toy."""

from weightfold.methods.gain.chart import Gain

from weightfold.core.charted import Charted
from weightfold.core.select import select_tensors


def gain(net, where=None):
    return Charted(net, [Gain(select_tensors(net, where))])
