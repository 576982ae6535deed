"""Crystals on the one road: what is to be solved for an answer, solving it, and the answer's arrays, files and pictures."""
