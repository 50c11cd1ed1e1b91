"""Exported functions and graphs."""
import os
import tempfile

from ._wire import call


def _arguments(args, kwargs):
    """A list of the arguments by position, and a dictionary of those by name."""
    args, kwargs = list(args), dict(kwargs)
    if args and isinstance(args[-1], dict):
        kwargs.update(args.pop())
    if len(args) == 1 and isinstance(args[0], (list, tuple)):
        args = list(args[0])
    return args, kwargs


def _runner(fun):
    def run(*args):
        if args and isinstance(args[-1], dict):
            return fun(*args[:-1], **args[-1])
        return fun(*args)

    return run


def export_function(file_or_callback, fun, *args, shapeless=False, metadata=None, **kwargs):
    if metadata is not None and not isinstance(metadata, str):
        raise TypeError("export_function(): incompatible function arguments")
    args, kwargs = _arguments(args, kwargs)
    call("exportFunction", file_or_callback if callable(file_or_callback) else os.path.abspath(file_or_callback), _runner(fun), args, kwargs or None, shapeless, metadata)


def import_function(path, return_metadata=False):
    result = call("importFunction", os.path.abspath(path), return_metadata)
    function, metadata = result if return_metadata else (result, "")

    def imported(*args, **kwargs):
        return function(*args, *([kwargs] if kwargs else []))

    return (imported, metadata) if return_metadata else imported


class exporter:
    def __init__(self, path, fun, *, shapeless=False, metadata=None):
        self._exporter = call("exporter", os.path.abspath(path), _runner(fun), shapeless, metadata)

    def __call__(self, *args, **kwargs):
        self._exporter(*args, *([kwargs] if kwargs else []))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._exporter.call("close")


def export_to_dot(file, *args, **kwargs):
    if isinstance(file, (str, os.PathLike)):
        call("exportToDot", os.path.abspath(file), *args, *([kwargs] if kwargs else []))
        return
    with tempfile.NamedTemporaryFile("r", suffix=".dot") as f:
        export_to_dot(f.name, *args, **kwargs)
        file.write(f.read())
