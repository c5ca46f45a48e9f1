"""What is trained on a network: low-rank adapters or the cross-attention weights, their files, and the way back."""
