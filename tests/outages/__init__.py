"""Kafka or Redis away, slow or late under a running worker: memory stays bounded, it waits, says so, and goes on by itself."""
