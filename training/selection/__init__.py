"""Which molecules to label next: a pool of unlabelled ones, and a checkpoint that says where it expects to be wrong."""
