"""Intrinsic dimension: the smallest random subspace in which a network learns its data."""

from weightfold.probes.intrinsic.finding import IntrinsicDimension as IntrinsicDimension
from weightfold.probes.intrinsic.probe import intrinsic_dimension as intrinsic_dimension
