"""Whether a setting is of the kind of its default."""

_KINDS: dict = {
    bool: "True or False",
    (int, float): "a number",
    dict: "names and values such as {name: value}",
    list: "a list such as [1, 2]",
}


def check_kind(name, value, default):
    """Refuse a setting that is not of the kind of its default.

    Kinds are numbers, truth values, names with values, and lists of a kind; another
    default, such as none, allows anything.

    Arguments
    ---------
    name : str
        Of the setting.
    value, default : object

    Example
    -------
    >>> check_kind("lr", 1, default=0.001)
    >>> check_kind("noise", 0.5, default=True)
    Traceback (most recent call last):
      ...
    ValueError: noise must be True or False; got 0.5
    """
    for kind, words in _KINDS.items():
        if isinstance(default, kind):
            truth = value in (True, False) and isinstance(value, int)
            right = isinstance(value, kind) and not isinstance(value, bool)
            if not (truth if kind is bool else right):
                raise ValueError(f"{name} must be {words}; got {value!r}")
            if kind is list and default:
                for item in value:
                    check_kind(f"each of {name}", item, default[0])
            return
