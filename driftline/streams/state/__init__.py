"""Checkpoints of tasks: manifest, blobs and rings, written whole or not at all."""
