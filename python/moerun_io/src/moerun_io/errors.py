class InputError(Exception):
    """A file, column or value that cannot be taken; the message says which, and what to do."""
