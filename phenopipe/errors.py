"""The one error that a user can mend."""


class UserError(ValueError):
    """A mistake in the user's files or configuration, told in one line.

    The line names the file, the row or key, what was found and what was wanted. Steps
    print it without a traceback (see :func:`phenopipe.knobs.run_step`).
    """
