"""Random linear maps from R^d to R^D with unit columns, for subspaces: `make` by kind."""

from weightfold.projections.base import Projection as Projection
from weightfold.projections.kinds import KINDS as KINDS
from weightfold.projections.kinds import Kind as Kind
from weightfold.projections.kinds import make as make
