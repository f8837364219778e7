"""EventBridge Scheduler, driven by boto3."""

from datetime import datetime, timedelta, timezone

from test_ebs import refused

TARGET = {"Arn": "arn:aws:sqs:eu-central-1:123456789012:q", "RoleArn": "arn:aws:iam::123456789012:role/r"}


def at(**delta):
    return (datetime.now(timezone.utc) + timedelta(**delta)).strftime("at(%Y-%m-%dT%H:%M:%S)")


def create(server, name, **changed):
    arguments = {"Name": name, "ScheduleExpression": at(hours=1), "FlexibleTimeWindow": {"Mode": "OFF"},
                 "Target": TARGET, "ActionAfterCompletion": "DELETE"}  # fmt: skip
    return server.client("scheduler").create_schedule(**{**arguments, **changed})["ScheduleArn"]


def test_a_schedule_is_made_read_and_deleted(server):
    scheduler = server.client("scheduler")
    expression = at(hours=2)
    arn = create(server, "watch-1", ScheduleExpression=expression)
    seen = scheduler.get_schedule(Name="watch-1")
    assert (seen["Arn"], seen["ScheduleExpression"], seen["ActionAfterCompletion"]) == (arn, expression, "DELETE")
    assert server.strict("GET", "inventory?schedule_prefix=watch-")["schedules"] == ["watch-1"]
    assert server.strict("GET", "inventory?schedule_prefix=other")["schedules"] == []
    scheduler.delete_schedule(Name="watch-1")
    refused("ResourceNotFoundException", 404, scheduler.delete_schedule, Name="watch-1")
    refused("ResourceNotFoundException", 404, scheduler.get_schedule, Name="watch-1")
    assert server.strict("GET", "inventory?schedule_prefix=")["schedules"] == []


def test_creation_is_idempotent_by_its_token_only(server):
    expression = at(hours=1)
    arn = create(server, "token", ClientToken="t", ScheduleExpression=expression)
    assert create(server, "token", ClientToken="t", ScheduleExpression=expression) == arn
    refused("ConflictException", 409, create, server, "token", ClientToken="t", ScheduleExpression="rate(1 day)")
    refused("ConflictException", 409, create, server, "token", ScheduleExpression=expression)


def test_wrong_schedules_are_refused(server):
    for expression in (at(minutes=-1), "at(2030-01-01)", "at(2030-13-01T00:00:00)", "rate(0 days)", "rate(1 week)",
                       "cron(* *)", "tomorrow"):  # fmt: skip
        refused("ValidationException", 400, create, server, "wrong", ScheduleExpression=expression)
    # 20 minutes from now in UTC is past in a zone that is ahead of it.
    ahead = {"ScheduleExpression": at(minutes=20), "ScheduleExpressionTimezone": "Asia/Tokyo"}
    refused("ValidationException", 400, create, server, "wrong", **ahead)
    refused("ValidationException", 400, create, server, "wrong", Target={**TARGET, "Arn": "queue"})
    refused("ResourceNotFoundException", 404, create, server, "wrong", GroupName="none")
    for number, expression in enumerate(("rate(5 minutes)", "cron(0 12 * * ? *)")):
        create(server, f"right-{number}", ScheduleExpression=expression)
