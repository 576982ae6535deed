"""How a structure gets its label, one module for each kind of structure."""
