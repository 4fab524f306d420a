"""Controllers: loops that keep what runs as it is specified, by one leader at a time."""

from infra.controllers.controller import (
    Controller,
    PeriodicTask,
    Reconciler,
    Subscription,
    ThreadedReconciler,
)
from infra.controllers.event_notifier import EventNotifier
from infra.controllers.leader_election import (
    ALWAYS_LEADER,
    LeaderElection,
    Leadership,
    LeadershipLostError,
    LeaseStore,
)
from infra.controllers.shared_subscription import SharedSubscription

__all__ = [
    "ALWAYS_LEADER",
    "Controller",
    "EventNotifier",
    "LeaderElection",
    "Leadership",
    "LeadershipLostError",
    "LeaseStore",
    "PeriodicTask",
    "Reconciler",
    "SharedSubscription",
    "Subscription",
    "ThreadedReconciler",
]
