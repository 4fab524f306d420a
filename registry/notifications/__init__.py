"""Notifications of runs and schedules, as automations and blocks of Prefect.

Prefect keeps everything of a notification: what it reports in the trigger of an automation, its
message in the automation's action, its target in a block. Nothing of it is in the catalogue.
"""

__all__ = [
    "notification_delivery",
    "notification_targets",
    "notification_triggers",
    "notification_views",
    "notifications",
]
