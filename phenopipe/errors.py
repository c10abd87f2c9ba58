"""The one error that a user can mend, and what other errors say, in one line."""


class UserError(ValueError):
    """A mistake in the user's files or configuration, told in one line.

    The line names the file, the row or key, what was found and what was wanted. Steps
    print it without a traceback (see :func:`phenopipe.knobs.run_step`).
    """


def reason(error: BaseException) -> str:
    r"""First line of what an error says; the kind of the error where it says nothing.

    Examples
    --------
    >>> reason(ValueError("no such column\nfound: a, b")), reason(EOFError())
    ('no such column', 'EOFError')
    """
    told = str(error).strip()
    return told.splitlines()[0] if told else type(error).__name__
