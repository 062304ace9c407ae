"""Many domains in one backbone, each with its own filters, batch norm and classifier.

`plan` decides which filters a domain owns, on what `trace` saw the network do; `account` says what
that costs. `presets` holds the sizes of the paper.
"""
