"""Curvature of the loss: eigenvalues, spectrum and trace, each with an error bound."""
