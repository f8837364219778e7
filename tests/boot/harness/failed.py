"""The one error of the bench: something could not be done, with what was tried. Findings are not errors."""


class Failed(Exception):
    pass
