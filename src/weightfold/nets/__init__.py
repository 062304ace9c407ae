"""Networks by name, and ACNet's asymmetric branches as a baseline."""

from weightfold.nets.asymmetric import AsymmetricConv2d as AsymmetricConv2d
from weightfold.nets.asymmetric import asymmetric as asymmetric
from weightfold.nets.asymmetric import asymmetric_deploy as asymmetric_deploy
from weightfold.nets.registry import available as available
from weightfold.nets.registry import build as build
from weightfold.nets.registry import list_nets as list_nets
from weightfold.nets.registry import network as network
from weightfold.spec import parse_spec as parse_spec
