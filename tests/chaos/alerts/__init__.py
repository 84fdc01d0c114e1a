"""Faults of the alert app: a real Kafka, a real Redis, the real Faust worker as a process, drift events made by hand.

    drift events ──> feeder (transactions, some aborted) ──> driftline.drift ──> alert workers ──> alerts, transitions, dlq
                                                                  │                   ^                      │
                                                                  v                faults                    v
                                                   uninterrupted `AlertWorker` in memory ──────────────> compared

    python -m tests.chaos.alerts [--short] [--seed N] [--only FAULT ...] [--no-controls | --no-faults] [--list] [--json FILE]

The claim: alerts are exactly once in state and at least once sent. The store holds the alerts of the uninterrupted run; each
change stands in the topics, once or more often with the same id and the same bytes; a reader that follows docs/subscribing.md
and the compacted topic end with the same alerts. `reference.py` computes them, `verify.py` compares.

A fault is a function of a `Scene` in a module of `faults/`; each of its hits needs a witness. A control (`controls.py`) takes
a rule out of the real code of the workers (`switches.py`), and the same run must then be found lossy. Every run has events that
come twice, poison, and transactions that are taken back. The verifier is tested apart, with outputs that were tampered with.
"""
