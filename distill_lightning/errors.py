"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Wrong input: one line on what was given, what was expected and what to do. Ends a command with status 2."""
