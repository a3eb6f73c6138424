"""Training with timm: data, building, the loop, checkpoints. See adapters.timm_adapter."""
