"""What mixed training gains over each modality alone, measured."""
