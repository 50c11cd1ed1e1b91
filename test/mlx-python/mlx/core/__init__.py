"""mlx.core on top of the JavaScript library."""
import builtins as _builtins
import inspect as _inspect
import math as _math
import os as _os
import sys as _sys
import tempfile as _tempfile
from types import ModuleType as _ModuleType

from . import _functions, _wire
from ._array import ArrayAt, array, create as _create, to_array as _to_array
from ._export import export_function, export_to_dot, exporter, import_function
from ._io import load, save, save_gguf, save_safetensors, savez, savez_compressed
from ._transforms import *
from ._transforms import arrays_of as _arrays_of
from ._types import Device, DeviceType, Dtype, DtypeCategory, Stream, StreamContext, categories as _categories, cpu, finfo, gpu, iinfo, stream
from ._wire import UNDEFINED as _UNDEFINED, call as _call, request as _request

__version__ = "0.32.0"
e, euler_gamma, inf, nan, newaxis, pi = _math.e, 0.5772156649015329, _math.inf, _math.nan, None, _math.pi
globals().update({f"{n}_" if n == "bool" else n: d for n, d in Dtype._known.items()})
globals().update(_categories)
ArrayLike = object

random, linalg, fft, fast, metal, cuda, distributed = (_ModuleType(f"mlx.core.{n}") for n in ("random", "linalg", "fft", "fast", "metal", "cuda", "distributed"))
for _m in (random, linalg, fft, fast, metal, cuda, distributed):
    _sys.modules[_m.__name__] = _m
for _path, _f in _functions.functions().items():
    _module, _, _name = _path.rpartition(".")
    setattr(globals()[_module] if _module else _sys.modules[__name__], _name, _f)

for _name in (
    "flatten squeeze abs square sqrt rsqrt reciprocal exp log log2 log10 sin cos log1p all any moveaxis swapaxes sum prod min max logcumsumexp logsumexp mean std var split "
    "argmin argmax cumsum cumprod cummax cummin round diagonal diag conj trace expand_dims".split()
):
    if _name not in ("trace", "expand_dims"):
        setattr(array, _name, globals()[_name])


def _kind(x):
    return float32 if isinstance(x, float) else int32 if -(1 << 31) <= x < 1 << 31 else int64


def arange(*args, stop=_UNDEFINED, step=None, dtype=None, start=None, stream=_UNDEFINED):
    args = list(args)
    if args and isinstance(args[-1], Dtype):
        dtype = args.pop()
    if start is not None:
        args.insert(0, start)
    if stop is not _UNDEFINED:
        args.append(stop)
    if not args or (start is not None and len(args) == 1):
        raise TypeError("arange(): incompatible function arguments: stop is missing")
    if len(args) == 1:
        args.insert(0, 0)
    if len(args) == 4:
        dtype = args.pop()
    if len(args) == 3:
        step = args.pop()
    if args[1] is None:
        args = [0, args[0]]
    for x in args + ([step] if step is not None else []):
        if isinstance(x, (_builtins.bool, complex, str)) or not isinstance(x, (int, float)):
            raise TypeError(f"arange(): incompatible function arguments: {type(x).__name__}")
    if dtype is None:
        dtype = result_type(*[_kind(x) for x in args + ([] if step is None else [step])])
    return _call("arange", args[0], args[1], 1 if step is None else step, dtype, stream)


def broadcast_arrays(*arrays, stream=_UNDEFINED):
    return tuple(_call("broadcastArrays", list(arrays), stream))


def broadcast_shapes(*shapes):
    return tuple(_call("broadcastShapes", *shapes))


def result_type(*args):
    return _call("resultType", *args)


def meshgrid(*arrays, sparse=_UNDEFINED, indexing=_UNDEFINED, stream=_UNDEFINED):
    return tuple(_call("meshgrid", *arrays, sparse, indexing, stream))


def einsum(subscripts, *operands, stream=_UNDEFINED):
    return _call("einsum", subscripts, list(operands), stream)


def einsum_path(subscripts, *operands):
    path, text = _call("einsumPath", subscripts, list(operands))
    return [tuple(p) for p in path], text


def _atleast(name):
    def f(*arrays, stream=_UNDEFINED):
        return _call(name, arrays[0] if len(arrays) == 1 else list(arrays), stream)

    return f


atleast_1d, atleast_2d, atleast_3d = _atleast("atleast1d"), _atleast("atleast2d"), _atleast("atleast3d")


def split(a, indices_or_sections, axis=_UNDEFINED, *, stream=_UNDEFINED):
    return _call("split", _functions.strict(a, "split", "a"), list(indices_or_sections) if isinstance(indices_or_sections, tuple) else indices_or_sections, axis, stream)


array.split = split


def asarray(a, dtype=None, *, copy=None):
    if copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    return _create(a, dtype)


def from_dlpack(x, *, copy=None):
    import numpy as np

    if copy is False:
        raise ValueError("[convert] Cannot import a CPU array without a copy.")
    return _create(x if isinstance(x, array) else np.from_dlpack(x))


def isdtype(dtype, kind):
    return _call("isdtype", dtype, list(kind) if isinstance(kind, tuple) else kind)


def depends(inputs, dependencies):
    out = _call("depends", inputs, dependencies)
    return tuple(out) if isinstance(inputs, tuple) else out


def device_info(d=_UNDEFINED):
    return {"".join("_" + c.lower() if c.isupper() else c for c in k): v for k, v in _call("deviceInfo", d).items()}


def new_thread_local_stream(device):
    return new_stream(device)


def clear_streams():
    pass


class printoptions:
    def __init__(self, **options):
        self._options = options

    def __enter__(self):
        self._before = get_printoptions()
        set_printoptions(**self._options)

    def __exit__(self, *_error):
        set_printoptions(precision=self._before.precision)


class PrintOptions:
    def __init__(self, precision=-1):
        self.precision = precision


def set_printoptions(precision=-1):
    _call("setPrintoptions", {"precision": precision})


def get_printoptions():
    return PrintOptions(**_call("getPrintoptions"))


class _RandomState:
    """The key of the global sequence, as a list of one array."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return self.__mlx_tree__()[i]

    def __iter__(self):
        return iter(self.__mlx_tree__())

    def __mlx_tree__(self):
        return _request("get", "random.state")

    def __mlx_fill__(self, f):
        _request("set", "random.state.0", f(self[0]))


random.state = _RandomState()

for _name in ("is_available", "get_active_memory", "get_peak_memory", "reset_peak_memory", "get_cache_memory", "clear_cache", "set_memory_limit", "set_cache_limit", "set_wired_limit"):
    setattr(metal, _name, lambda *args, _js=_functions.camel(f"metal.{_name}"): _call(_js, *args))
metal.start_capture = lambda path: _call("metal.startCapture", path)
metal.stop_capture = lambda: _call("metal.stopCapture")
metal.device_info = lambda: device_info(gpu)
cuda.is_available = lambda: False


class _Group:
    def rank(self):
        return 0

    def size(self):
        return 1


distributed.Group = _Group
distributed.is_available = lambda backend="any": False
distributed.init = lambda strict=False, backend="any": _Group()
for _name in ("all_sum", "all_gather", "all_max", "all_min", "sum_scatter"):
    setattr(distributed, _name, lambda x, group=None, stream=None: x)
