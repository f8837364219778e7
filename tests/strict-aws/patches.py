"""All the changes to moto, made once, before it serves."""

import consoles
import describe
import images
import instances
import quotas
import schedules


def apply():
    for module in (images, instances, describe, schedules, consoles, quotas):
        module.apply()
