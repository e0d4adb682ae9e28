"""Several ranks as one training: DDP, FSDP2, synchronisation of gradients, agreements, pieces of tensors."""
