"""The demonstration: a simulated fraud stream, an embedded broker, and Driftline watching it."""
