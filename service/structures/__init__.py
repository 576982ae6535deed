"""Text to ``Structure``: file formats, the parser processes, charge and spin as stated."""
