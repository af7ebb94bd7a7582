"""FedCoLLM, Flower and NVIDIA FLARE side by side in one run: ``python -m bench.peers``."""
