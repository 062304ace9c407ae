"""Intrinsic dimension of balancing an inverted pendulum (Li et al. 2018, Table 1: 562 -> 4)."""

from weightfold.probes.pendulum.finding import PendulumDimension as PendulumDimension
from weightfold.probes.pendulum.finding import Trial as Trial
from weightfold.probes.pendulum.probe import pendulum_dimension as pendulum_dimension
