"""How the shipped weights were trained: autoencoder, CLIP, UNet, decoders, judge. Every part can be resumed."""
