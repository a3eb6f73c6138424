"""What a trained model is worth on images it has not seen; see docs/after-training.md."""
