"""How the shipped weights were made: autoencoder, CLIP, UNet, judge. Every part resumes after an interruption."""
