"""The science: structures in, Hamiltonians out. No HTTP, no environment variables, no optimiser."""
