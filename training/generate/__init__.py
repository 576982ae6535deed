"""How labelled structures are made: recipe, geometries, label, shards; ``training.generate.run`` puts them together."""
