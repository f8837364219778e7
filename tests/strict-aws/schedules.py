"""EventBridge Scheduler: the checks of CreateSchedule that moto leaves out. It runs nothing, nor does moto."""

import json
import re
from datetime import datetime, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from moto.core.exceptions import JsonRESTError
from moto.scheduler.exceptions import ScheduleExists, ScheduleGroupNotFound
from moto.scheduler.responses import EventBridgeSchedulerResponse

ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:(\d{12}|aws)?:.+")


class Invalid(JsonRESTError):
    code = 400

    def __init__(self, message):
        super().__init__("ValidationException", message)


class Conflict(JsonRESTError):
    code = 409

    def __init__(self, message):
        super().__init__("ConflictException", message)


def check_expression(text, zone):
    if found := re.fullmatch(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)", text):
        try:
            when = datetime.fromisoformat(found[1]).replace(tzinfo=ZoneInfo(zone))
        except (ValueError, ZoneInfoNotFoundError) as error:
            raise Invalid(f"Invalid Schedule Expression {text}: {error}") from None
        if when <= datetime.now(timezone.utc):
            raise Invalid(f"Invalid Schedule Expression {text}: it is in the past.")
    elif found := re.fullmatch(r"rate\(([1-9]\d*) (minute|hour|day)s?\)", text):
        return
    elif not re.fullmatch(r"cron\(\S+( \S+){5}\)", text):
        raise Invalid(f"Invalid Schedule Expression {text}: at(yyyy-mm-ddThh:mm:ss), rate(...) or cron(...).")


def create_schedule(original):
    def method(self):
        backend = self.scheduler_backend
        sent = json.loads(self.body)
        name, token = self.uri.split("?")[0].split("/")[-1], sent.pop("ClientToken", None)
        # On the backend, so that a reset of moto forgets them with the rest.
        tokens = backend.__dict__.setdefault("strict_schedule_tokens", {})
        if token in tokens:
            before, answer = tokens[token]
            if before != (name, sent):
                raise Conflict("The client token was used before with other arguments.")
            return answer
        if sent.get("GroupName", "default") not in backend.schedule_groups:
            raise ScheduleGroupNotFound(sent["GroupName"])
        check_expression(sent["ScheduleExpression"], sent.get("ScheduleExpressionTimezone", "UTC"))
        if not ARN.fullmatch(sent["Target"]["Arn"]):
            raise Invalid(f"Provided Arn is not in correct format: {sent['Target']['Arn']}")
        answer = original(self)
        if token is not None:
            tokens[token] = ((name, sent), answer)
        return answer

    return method


def apply():
    EventBridgeSchedulerResponse.create_schedule = create_schedule(EventBridgeSchedulerResponse.create_schedule)
    ScheduleExists.code = 409  # moto says 400
