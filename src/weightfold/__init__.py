"""Train convolutional networks in other coordinates than you deploy.

A chart T maps coordinates psi, which the optimizer moves, to the weights theta = T(psi) of an
ordinary network, which is what gets shipped.
"""
