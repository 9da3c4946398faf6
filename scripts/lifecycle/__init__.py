"""What `promote`, `rollback` and `history` share."""


class LifecycleError(Exception):
    """A command cannot be carried out; the message is one line for the terminal."""
