"""Several ranks as one training: DDP, FSDP2, the exchange of gradients, several hosts."""
