"""All the changes to moto, made once, before it serves."""

import consoles
import describe
import images
import instances
import quotas
import schedules
import volumes


def apply():
    for module in (images, instances, volumes, describe, schedules, consoles, quotas):
        module.apply()
