"""The parts of scripts/bench: one node and its peers, driven by one load generator."""
