"""K-fold training: the split by car, the samples, the networks, the losses, the trainer."""
