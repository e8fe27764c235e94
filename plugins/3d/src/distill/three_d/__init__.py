"""distill.three_d: sets of Gaussians, a renderer for any machine, cameras, meshes, files and previews."""
