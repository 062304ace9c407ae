"""Lottery tickets: prune by magnitude, set the survivors back, train again, and compare."""

from weightfold.probes.tickets.finding import LotteryTicket as LotteryTicket
from weightfold.probes.tickets.masks_file import load_masks as load_masks
from weightfold.probes.tickets.masks_file import load_starts as load_starts
from weightfold.probes.tickets.probe import lottery_ticket as lottery_ticket
