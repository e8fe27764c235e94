"""Training that mixes modalities: joint states, and teachers of one modality for students of another."""
