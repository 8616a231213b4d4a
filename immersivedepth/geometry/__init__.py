"""Pure functions on tensors: spheres, cameras, meshes, solvers. No configs, no classes, no files."""
