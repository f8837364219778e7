"""All the changes to moto, made once, before it serves."""

import describe
import images
import instances
import schedules


def apply():
    for module in (images, instances, describe, schedules):
        module.apply()
