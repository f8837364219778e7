"""Answers in the form that each service's protocol gives them, errors above all."""

import json
import uuid
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass
class Reply:
    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    error: str | None = None


class AwsError(Exception):
    """An error of a service, by the name and the status that AWS documents."""

    def __init__(self, status, code, message, reason=None):
        super().__init__(message)
        self.status, self.code, self.message, self.reason = status, code, message, reason


def document(status, value, headers=None):
    body = json.dumps(value).encode()
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


def error(service, status, code, message, reason=None):
    request = str(uuid.uuid4())
    if service == "ec2":
        text = (f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
                f"</Errors><RequestID>{request}</RequestID></Response>")
    elif service == "s3":
        text = (f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
                f"<RequestId>{request}</RequestId></Error>")
    elif service in ("sts", "iam"):
        text = (f"<ErrorResponse><Error><Type>Sender</Type><Code>{escape(code)}</Code>"
                f"<Message>{escape(message)}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>")
    else:
        value = {"__type": code, "Message": message, "message": message}
        if service == "ebs":  # the model's errors have Message and Reason, nothing else
            value = {"Message": message} | ({"Reason": reason} if reason else {})
        reply = document(status, value, {"x-amzn-ErrorType": code, "x-amzn-RequestId": request})
        reply.error = code
        return reply
    xml = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
    return Reply(status, xml, {"Content-Type": "text/xml", "x-amzn-RequestId": request}, code)
