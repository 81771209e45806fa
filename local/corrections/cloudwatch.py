"""CloudWatch: alarms that CloudFormation refuses and AWS takes, and log lines that AWS makes metrics of."""

import functools
import json
from collections.abc import Callable
from typing import Any, Final

from ministack.services import cloudwatch, ecs
from ministack.services.cloudformation import provisioners

Properties = dict[str, Any]

MATH: Final = "(metric math)"
"""A metric that nobody writes, so that such an alarm is there to be looked at, and never goes off."""


def taken(record: Callable[[str, Properties], Properties]) -> Callable[[str, Properties], Properties]:
    """AWS: an alarm on an expression over several metrics; MiniStack evaluates none, and refuses the template."""

    @functools.wraps(record)
    def alarm(name: str, properties: Properties) -> Properties:
        if not properties.get("Metrics"):
            return record(name, properties)
        single = {key: value for key, value in properties.items() if key != "Metrics"}
        return record(name, single | {"MetricName": MATH, "Namespace": MATH})

    return alarm


def measured(line: str) -> None:
    """AWS: a log line in the embedded metric format is its metrics as well; MiniStack keeps it as a line. For the
    account and region that are the request's.
    """
    if '"_aws"' not in line:
        return
    try:
        fields = json.loads(line)
        at = fields["_aws"]["Timestamp"] / 1000
        for directive in fields["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = {name: fields[name] for name in names}
                for metric in directive["Metrics"]:
                    value = fields[metric["Name"]]
                    values = value if isinstance(value, list) else [value]
                    what = (directive["Namespace"], metric["Name"], dimensions, at, metric.get("Unit", "None"))
                    cloudwatch._store_datum(*what, None, values, None, None)
    except (ValueError, TypeError, LookupError):
        return  # no such line after all; AWS passes over it, too


def forwarded(emit: Callable[[Properties, str], None]) -> Callable[[Properties, str], None]:
    """The same of what a task writes."""

    @functools.wraps(emit)
    def emit_event(config: Properties, message: str) -> None:
        emit(config, message)
        measured(message)

    return emit_event


def apply() -> None:
    ecs._emit_awslogs_event = forwarded(ecs._emit_awslogs_event)
    provisioners._cw_metric_alarm_record = taken(provisioners._cw_metric_alarm_record)
