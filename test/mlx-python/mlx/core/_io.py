"""Files: paths, and Python's file objects through temporary files."""
import os
import tempfile

from ._array import array
from ._wire import UNDEFINED, call


def _path(file):
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else None


def load(file, format=None, return_metadata=False, *, stream=UNDEFINED):
    path = _path(file)
    if path is None and not hasattr(file, "read"):
        raise ValueError("[load] Input must be a file-like object, or string")
    if path is None:
        head = file.read()
        kind = format or ("npz" if head[:2] == b"PK" else "npy" if head[:6] == b"\x93NUMPY" else "gguf" if head[:4] == b"GGUF" else "safetensors")
        with tempfile.NamedTemporaryFile(suffix="." + kind) as f:
            f.write(head)
            f.flush()
            result = call("load", f.name, format or kind, return_metadata, stream)
            _evaluate(result)
    else:
        result = call("load", os.path.abspath(path), UNDEFINED if format is None else format, return_metadata, stream)
    return tuple(result) if return_metadata else result


def _evaluate(result):
    if isinstance(result, list):
        result = result[0]
    call("eval", list(result.values()) if isinstance(result, dict) else result)


def _write(file, suffix, write):
    path = _path(file)
    if path is not None:
        write(os.path.abspath(path))
        return
    if not hasattr(file, "write"):
        raise ValueError("[save] Input must be a file-like object, string, or pathlib.Path")
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "file" + suffix)
        write(name)
        with open(name, "rb") as f:
            file.write(f.read())


def save(file, arr):
    _write(file, ".npy", lambda path: call("save", path, arr))


def _savez(name):
    def f(file, *args, **kwargs):
        arrays = {f"arr_{i}": a for i, a in enumerate(args)} | kwargs
        for k, v in arrays.items():
            if not isinstance(v, array):
                raise TypeError(f"{name}: {k} must be an array")
        _write(file, ".npz", lambda path: call(name, path, arrays))

    return f


savez, savez_compressed = _savez("savez"), _savez("savezCompressed")


def save_safetensors(file, arrays, metadata=None):
    _write(file, ".safetensors", lambda path: call("saveSafetensors", path, arrays, UNDEFINED if metadata is None else metadata))


def save_gguf(file, arrays, metadata=None):
    _write(file, ".gguf", lambda path: call("saveGGUF", path, arrays, UNDEFINED if metadata is None else metadata))
