"""ExpandNets around its chart: layers as chains of layers, and how chains fold to one weight.

`chain` holds `Chain`, `algebra` the composition of kernels, `initial` where psi starts, `cost` the
multiply-adds, `verb` `wf.expand`, `twin` the nonlinear twin.
"""
