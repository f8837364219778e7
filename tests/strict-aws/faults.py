"""Faults that a test orders ahead: errors, stalls and lost connections for the next requests that match."""

import json
from threading import Lock

KINDS = ("error", "stall_seconds", "drop_before", "drop_after")
KEYS = {"service", "action", "times", "match", "per", *KINDS}


def checked(fault):
    """Raises ValueError for what is not a fault: a misspelt one would silently test nothing."""
    if not isinstance(fault, dict) or "action" not in fault:
        raise ValueError(f"a fault is an object with an action: {json.dumps(fault)}")
    if unknown := set(fault) - KEYS:
        raise ValueError(f"unknown keys {sorted(unknown)} in {json.dumps(fault)}")
    kinds = [kind for kind in KINDS if kind in fault]
    if len(kinds) != 1:
        raise ValueError(f"exactly one of {KINDS}, not {kinds}, in {json.dumps(fault)}")
    if not isinstance(fault.get("times"), int):
        raise ValueError(f"times is a number of requests, -1 for all, in {json.dumps(fault)}")
    if "error" in fault and set(fault["error"]) - {"reason"} != {"status", "code", "message"}:
        raise ValueError(f"an error has status, code and message: {json.dumps(fault)}")
    return fault


def looked_up(parameters, path):
    """A parameter by its name or by a path such as NetworkInterfaces.0.SubnetId; None where there is none."""
    value = parameters
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


class Faults:
    def __init__(self):
        self.lock = Lock()
        self.ordered = []  # (fault, how often it was used per value of its "per" parameter)

    def add(self, faults):
        checked_ones = [(checked(fault), {}) for fault in faults]
        with self.lock:
            self.ordered += checked_ones

    def clear(self):
        with self.lock:
            self.ordered.clear()

    def take(self, call):
        """The first fault that applies to this call, counted as used."""
        with self.lock:
            for fault, used in self.ordered:
                if fault["action"] != call.action or fault.get("service", call.service) != call.service:
                    continue
                if any(looked_up(call.parameters, k) != v for k, v in fault.get("match", {}).items()):
                    continue
                key = str(looked_up(call.parameters, fault["per"])) if "per" in fault else ""
                if 0 <= fault["times"] <= used.get(key, 0):
                    continue
                used[key] = used.get(key, 0) + 1
                return fault
        return None
