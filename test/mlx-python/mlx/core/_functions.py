"""Functions that are called as they are: made of the table of signatures."""
import os
import re

from ._array import array, is_scalar, to_array
from ._wire import UNDEFINED, call

_special = {"var": "variance", "gather_mm": "gatherMM", "gather_qmm": "gatherQMM", "gather_qqmm": "gatherQQMM", "segmented_mm": "segmentedMM", "block_masked_mm": "blockMaskedMM", "save_gguf": "saveGGUF"}
#: Functions whose lists of results are tuples in Python.
_tuples = set("divmod linalg.qr linalg.svd linalg.eig linalg.eigh linalg.lu linalg.lu_factor linalg.slogdet quantize meshgrid broadcast_arrays broadcast_shapes".split())


def camel(path):
    module, _, name = path.rpartition(".")
    name = _special.get(name) or re.sub(r"_([a-z0-9])", lambda m: m[1].upper(), name)
    return f"{module}.{name}" if module else name


def strict(value, name, param):
    if isinstance(value, array):
        return value
    if hasattr(value, "__mlx_array__"):
        return value.__mlx_array__()
    raise TypeError(f"{name}(): incompatible function arguments: {param} must be an array, got {type(value).__name__}")


def _convert(name, given, kinds):
    """Turns scalars into arrays: next to an array they take its dtype."""
    pair = [p for p in ("a", "b", "x", "y") if "#" in kinds.get(p, "")]
    like = next((given[p].dtype for p in pair if isinstance(given.get(p), array)), None) if len(pair) == 2 else None
    for p, kind in kinds.items():
        value = given.get(p, UNDEFINED)
        if value is UNDEFINED:
            continue
        if value is None:
            if "?" not in kind:
                given[p] = UNDEFINED
        elif "!" in kind:
            given[p] = strict(value, name, p)
        elif "#" in kind:
            dtype = like if p in pair else given["a"].dtype if name in ("clip", "pad") else given.get("dtype") if name in ("full", "full_like") else None
            given[p] = to_array(value, None if dtype is UNDEFINED else dtype)
        elif isinstance(value, tuple):
            given[p] = list(value)
        if p in ("k", "kth", "axis", "shape"):
            for x in value if isinstance(value, (list, tuple)) else [value]:
                if x is not None and not hasattr(x, "__index__"):
                    raise TypeError(f"{name}(): incompatible function arguments: {p} must be integers, got {type(x).__name__}")


def _function(path, params, order):
    name, js = path.rpartition(".")[2], camel(path)
    kinds = {re.sub(r"\W", "", p): re.sub(r"\w", "", p) for p in params}
    names = list(kinds)
    positional = names + ["stream"]

    def f(*args, **kwargs):
        if len(args) > len(positional):
            raise TypeError(f"{name}(): incompatible function arguments: takes {len(names)}, got {len(args)}")
        given = dict(zip(positional, args))
        for k, v in kwargs.items():
            if k not in positional or k in given:
                raise TypeError(f"{name}(): incompatible function arguments: {k}")
            given[k] = v
        if names and kinds[names[0]] == "!" and names[0] not in given:
            raise TypeError(f"{name}(): incompatible function arguments: {names[0]} is missing")
        stream = given.pop("stream", None)
        _convert(name, given, kinds)
        result = call(js, *[given.get(p, UNDEFINED) for p in order], UNDEFINED if stream is None else stream)
        return tuple(result) if path in _tuples and isinstance(result, list) else result

    f.__name__ = f.__qualname__ = name
    return f


def functions():
    """Path -> function of every line of the table."""
    out = {}
    with open(os.path.join(os.path.dirname(__file__), "signatures.txt")) as table:
        for line in table:
            if line.startswith("#") or not line.strip():
                continue
            paths, params, *order = (part.split() for part in line.split(":"))
            for path in paths:
                out[path] = _function(path, params, order[0] if order else [re.sub(r"\W", "", p) for p in params])
    return out
