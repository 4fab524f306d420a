"""Messages of notifications, as Jinja templates that Prefect's server fills.

An automation has them in its actions. They read the event: a run that ended, a schedule that was
paused, or a test. The word of a run's state is derived as :mod:`registry.runs.statuses` does.
"""

from __future__ import annotations

import json

from infra.prefect_events import PAUSED_SCHEDULE, REASON_LABEL, TESTED_NOTIFICATION
from registry.runs import statuses

_LONGEST_REASON = 500

_WORDS = {
    kind: word
    for kind, word in statuses.BY_TYPE.items()
    if kind in statuses.FINAL
}  # fmt: skip

# Sets: noun, title, flow_name, word, detail, reason, link, subject, text.
_HEAD = f"""
{{%- set resource = event.resource -%}}
{{%- set title = resource.name or resource.id -%}}
{{%- set flow_name = event.resource_in_role.get("flow", {{}}).get("prefect.resource.name", "") -%}}
{{%- set message = resource.get("prefect.state-message") or "" -%}}
{{%- set state_type = resource.get("prefect.state-type") or "" -%}}
{{%- set mark = message.split("]")[0][1:] if message[:1] == "[" and "]" in message else "" -%}}
{{%- set mark = mark if mark.isalnum() and mark[:1].isupper() else "" -%}}
{{%- set message = message[mark|length + 2:] if mark else message -%}}
{{%- set cause = mark or resource.get("prefect.state-name") or "" -%}}
{{%- set failed = {json.dumps(statuses.FAILED_BY_DETAIL)} -%}}
{{%- set own = {json.dumps(statuses.FAILED)} -%}}
{{%- set words = {json.dumps(_WORDS)} -%}}
{{%- set detail = cause if cause not in {json.dumps(sorted(statuses.PLAIN))} else "" -%}}
{{%- if event.event == "{PAUSED_SCHEDULE}" -%}}
  {{%- set noun, word = "schedule", "DISABLED" -%}}
  {{%- set reason = resource.get("{REASON_LABEL}") or "" -%}}
  {{%- set link = resource|ui_resource_events_url or "" -%}}
  {{%- set subject = "DISABLED: schedule " ~ title -%}}
  {{%- set first = "The schedule " ~ title ~ " was paused." -%}}
{{%- elif event.event == "{TESTED_NOTIFICATION}" -%}}
  {{%- set noun, word, reason = "test", "", "No run and no schedule is concerned." -%}}
  {{%- set link = automation|ui_url or "" -%}}
  {{%- set subject = "Test of the notification " ~ title -%}}
  {{%- set first = "This is a test of the notification " ~ title ~ "." -%}}
{{%- else -%}}
  {{%- set noun = "run" -%}}
  {{%- set word = words.get(state_type)
      or failed.get(cause) or own.get(flow_name, "{statuses.FAILED_ELSEWHERE}") -%}}
  {{%- set lines = message.strip().split("\\n") -%}}
  {{%- set quoted = message.split("The whole log is ")[0].strip().split("\\n")[1:] -%}}
  {{%- set quote = " " ~ quoted[-1].strip() if quoted and lines[0][-1:] == ":" else "" -%}}
  {{%- set reason = lines[0] ~ quote -%}}
  {{%- set reason = reason[:{_LONGEST_REASON}] -%}}
  {{%- set link = flow_run|ui_url or "" -%}}
  {{%- set shown = word ~ (" (" ~ detail ~ ")" if detail else "") -%}}
  {{%- set subject = shown ~ ": " ~ title ~ " (" ~ flow_name ~ ")" -%}}
  {{%- set first = "The run " ~ title ~ " of " ~ flow_name ~ " ended " ~ shown ~ "." -%}}
{{%- endif -%}}
{{%- set text = [first, reason, link]|select|join("\\n") -%}}
"""

SUBJECT = _HEAD + "{{ subject }}"
BODY = _HEAD + "{{ text }}"

# Slack decodes exactly these three entities. Mattermost and Rocket.Chat read the same JSON.
SLACK = _HEAD + (
    '{{ {"text": text|replace("&", "&amp;")|replace("<", "&lt;")|replace(">", "&gt;")}|tojson }}'
)

WEBHOOK = _HEAD + (
    '{{ {"notification": automation.name, "noun": noun, "name": title, '
    '"id": resource.id.split(".")[2:]|join("."), "flow": flow_name, "state": word, '
    '"detail": detail, "reason": reason, "link": link, "time": event.occurred.isoformat(), '
    '"event": event.event, "subject": subject, "text": text}|tojson }}'
)
