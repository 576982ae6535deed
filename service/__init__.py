"""The HTTP service: structures in, predicted Hamiltonians and DFT initial guesses out. The science is in ``model``."""
