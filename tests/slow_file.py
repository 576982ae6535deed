"""A structure file that takes long to read."""

from __future__ import annotations

ENDLESS = (
    "data_x\n_symmetry_Int_Tables_number 225\n"
    + "".join(f"_cell_length_{axis} 50\n" for axis in "abc")
    + "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    + "loop_\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    + "".join(f"H {1e-4 * n:.4f} {1.3e-4 * n + 0.01:.5f} {1.7e-4 * n + 0.02:.5f}\n" for n in range(1, 5000))
)
"""A CIF for which ASE needs a minute."""
