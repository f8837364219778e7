"""What an instance's serial line said: nothing, unless a journey tells (moto answers with a canned boot), and a screenshot."""

import base64

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.responses.general import General

from images import fail

KEPT = 64 << 10
# Black, one pixel: AWS answers with a JPEG.
PICTURE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEAYABgAAD/2wBDAAMCAgICAgMCAgIDAwMDBAYEBAQEBAgGBgUGCQgKCgkICQkKDA8MCgsOCwkJDRENDg8QEBEQCgwSExIQEw8QEBD/"
    "wAALCAABAAEBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAAPwBU/9k="
)


def tell(backend, instance, said):
    """Of the serial line of an instance; on the backend, so that a reset of moto forgets it with the rest."""
    backend.__dict__.setdefault("strict_consoles", {})[instance] = said[-KEPT:]


def get_console_output(self):
    instance = self.ec2_backend.get_instance(self.params["InstanceId"])
    said = getattr(self.ec2_backend, "strict_consoles", {}).get(instance.id)
    output = {} if said is None else {"Output": base64.b64encode(said).decode()}
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), **output})


def get_console_screenshot(self):
    instance = self.ec2_backend.get_instance(self.params["InstanceId"])
    if instance.state != "running":
        fail("IncorrectInstanceState", f"The instance '{instance.id}' is not running.")
    return ActionResult({"InstanceId": instance.id, "ImageData": base64.b64encode(PICTURE).decode()})


def apply():
    General.get_console_output = get_console_output
    General.get_console_screenshot = get_console_screenshot
