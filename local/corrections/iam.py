"""SimulatePrincipalPolicy, where MiniStack asks no condition about what the caller says of the call."""

import contextvars
from collections.abc import Sequence
from typing import Any

from ministack.core.iam_evaluator import EvalContext, evaluate
from ministack.core.responses import get_region
from ministack.services import iam

_extract = iam._extract_simulate_params
_entries: contextvars.ContextVar[dict[str, str]] = contextvars.ContextVar("entries")
_DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny"}


def extract(parameters: dict[str, Any]) -> tuple[list[str], str]:
    """Keeps the request's `ContextEntries` for `results`; of each the first value, which is all that we send."""
    found, number = {}, 1
    while name := iam._p(parameters, f"ContextEntries.member.{number}.ContextKeyName"):
        value = iam._p(parameters, f"ContextEntries.member.{number}.ContextKeyValues.member.1")
        found[name.lower()] = value
        number += 1
    _entries.set(found)
    actions, resource = _extract(parameters)
    return actions, resource


def results(actions: Sequence[str], resource: str, principal: str, account: str, policies: Any) -> str:
    """AWS: conditions are judged by the context that the request gives, and do not hold without it."""
    members = []
    for action in actions:
        context = EvalContext(
            principal_arn=principal,
            principal_type="AssumedRole",
            principal_account=account,
            action=action,
            resource_arn=resource,
            region=get_region(),
            source_ip="127.0.0.1",
            secure_transport=True,
            service_context=_entries.get({}),
        )
        decision = _DECISIONS.get(evaluate(context, policies).decision if policies else "", "implicitDeny")
        members.append(
            f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
            f"<EvalDecision>{decision}</EvalDecision></member>"
        )
    return "".join(members)


def apply() -> None:
    iam._extract_simulate_params = extract
    iam._build_simulate_results_real = results
