"""The routes, one file for each group; each holds no more than its HTTP face."""
