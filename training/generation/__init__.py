"""How labelled structures are made: recipe, geometries, label, shards; ``training.generate`` puts them together."""
