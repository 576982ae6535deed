"""Labels of crystals: structures by recipe, Kohn-Sham matrices by programs of their own, one HDF5 file."""
