"""Memorization: fitting noise, which examples are learnt when, and a network made to remember."""

from weightfold.probes.memory.critical import CriticalSamples as CriticalSamples
from weightfold.probes.memory.critical import critical_sample_ratio as critical_sample_ratio
from weightfold.probes.memory.finding import Memorization as Memorization
from weightfold.probes.memory.ledger import example_ledger as example_ledger
from weightfold.probes.memory.ledger_finding import ExampleLedger as ExampleLedger
from weightfold.probes.memory.memorizer import Memorizer as Memorizer
from weightfold.probes.memory.memorizer import memorizer as memorizer
from weightfold.probes.memory.options import Variant as Variant
from weightfold.probes.memory.probe import memorization as memorization
