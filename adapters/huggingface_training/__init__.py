"""The parts of training with transformers."""
