"""distill.methods: losses, trajectories, transforms and methods that no modality owns."""
