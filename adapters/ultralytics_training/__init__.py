"""What UltralyticsAdapter is made of: data, trainers, checkpoints, reporting, prediction."""
