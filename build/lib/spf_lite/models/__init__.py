"""Text-to-image models: loading, text and image encoding, noise, adapters, sampling."""
