"""The hyperparameters of each framework: typed, bounded, described, without its library."""
