"""A backbone and its adapters as ONNX: what other runtimes need to sample from it, such as a browser."""
