"""What is trained on a UNet: low-rank adapters or the cross-attention weights, their files, and the way back."""
