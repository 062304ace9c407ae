"""Random linear maps from R^d to R^D with unit columns, for subspaces: `make` by kind."""

from weightfold.methods.subspace.projections.base import Projection as Projection
from weightfold.methods.subspace.projections.kinds import KINDS as KINDS
from weightfold.methods.subspace.projections.kinds import Kind as Kind
from weightfold.methods.subspace.projections.kinds import make as make
from weightfold.methods.subspace.projections.kinds import projection_numbers as projection_numbers
