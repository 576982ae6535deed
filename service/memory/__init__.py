"""How much memory and processor time there is, how much a structure will need, and who may begin."""
