"""`make chaos`: faults on a real Kafka and a real Redis, and proof that nothing is lost, doubled or changed.

    inputs ──> feeder ──> source topics ──> ingest ──> join ──> detect ──> drift, snapshots, dead letters
                                              ^          ^        ^              │ read committed
                       faults ── kill, sleep, ┴── more, ─┴─ fewer ┘              v
                          │                                              verify <── reference: the same processors,
                          └── hits, each with a witness ──> report <─────── │       uninterrupted, over the same topics
                                                                            └────── the list of inputs

    python -m tests.chaos [--short] [--seed N] [--only FAULT ...] [--no-controls | --no-faults] [--list] [--json FILE]
    python -m tests.chaos.table FILE ...      # reports as the tables of docs/guarantees.md

Each fault gets an installation of its own (topics and keys under a prefix) on services that all share, so that what is
lost is lost to that fault. `campaign.perform` is the life of a run: open, let the input flow, inject, go on until there
are 1,000 drift events, end the input, drain stage after stage, verify.

To add a fault, write a function of a `Scene` in a module of `faults/`, and put it into that module's `FAULTS`::

    def redis_restarts(scene: Scene) -> None:
        \"""Redis is stopped for a second, with its data kept.\"""
        hit = scene.hit("detect", "redis restarts")        # before: committed offsets and the time are noted
        scene.services.redis.restart()
        scene.crew("detect").of("a").until_logged("store_away")
        hit.witness = "the worker found Redis away"         # what shows that it bit; a hit without one makes the run fail
        scene.recovered(hit)                                # a commit on every partition; how long it took is reported

    FAULTS = (Fault("redis_restarts", redis_restarts, short=True),)

The short form does faults that `shares` one after the other in one installation, as most of its time goes by around them.
A new module gets its line in `faults/__init__.py`. What a scene offers: `crew(stage)` with workers to `start`, `kill`,
`sleep` and `wake`; `watch` for what the broker knows; `services.kafka` and `services.redis` to restart, kill or look into;
`feeder` for bursts and producers with a wrong clock; `draw[stage]` for seeded choices; `needs` where not every hit can be
witnessed, only so many of a kind. A worker that ends by itself makes the run fail unless its `expected` codes have it.

A negative control (`controls.py`) takes a rule out of the real code of the workers (`switches.py`, through `worker.py`), and
the same run must then be found lossy; a rule behind which others stand has its story in `tests/protocol` instead. The
verifier is tested apart (`test_verify.py`), with outputs that were tampered with.

A run feeds no faster than detect takes it, and waits for conditions, not for times; on a busy machine it takes longer.
"""
