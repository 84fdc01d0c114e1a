"""Faust, with nothing that could surprise; `app.py` is what runs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faust

from driftline.streams.alert import transport


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What the app needs to know.

    Attributes
    ----------
    brokers : ``host:port,host:port``.
    until_idle_s : end with 0 after this many seconds with nothing to do; None runs on.
    republish_s : time between two publications of all open alerts.
    check_crcs : False for the embedded broker, whose transactional batches carry a wrong checksum.
    """

    brokers: str
    group: str
    topic: str
    data_directory: str
    credentials: Any = None
    until_idle_s: float | None = None
    republish_s: float = 300
    instance_id: str | None = None
    session_timeout_s: float = 30
    check_crcs: bool = True


def faust_app(settings: AppSettings) -> Any:
    """A Faust app with nothing that could surprise: at-least-once, no tables, no web server, no topic made by itself."""
    transport.register()
    urls = [f"{transport.SCHEME}://{broker.strip()}" for broker in settings.brokers.split(",") if broker.strip()]
    return faust.App(
        settings.group,
        broker=urls,
        broker_credentials=settings.credentials,
        processing_guarantee="at_least_once",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,           # effects are idempotent: what is in flight at a rebalance is read again
        stream_recovery_delay=0,
        broker_max_poll_records=500,
        broker_max_poll_interval=300,      # the default 1000 s hides a stall
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 10,
        broker_commit_interval=1.0,
        broker_check_crcs=settings.check_crcs,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        web_enabled=False,
        store="memory://",
        datadir=settings.data_directory,
    )
