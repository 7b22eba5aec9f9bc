"""The one error that is meant for the user's eyes."""


class UserError(Exception):
    """What the user can put right; the message says what was found, the rule, and what to run."""
