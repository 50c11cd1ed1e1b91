"""The array class: a handle of an array in the JavaScript process, with MLX's operators, methods and conversions."""
import numpy as np

from . import _wire
from ._types import Dtype
from ._wire import UNDEFINED, call, decoders, encoders, release, request

_D = Dtype._known
_numpy = {n: np.dtype(n) for n in _D if n not in ("bfloat16",)}
_integers = {n: np.iinfo(n) for n in _D if "int" in n}
_INT32 = np.iinfo(np.int32)


def _send(values, dtype):
    """An array of a NumPy array (row-major), which has the dtype's elements, or its bits as uint16 for bfloat16."""
    shape, name = list(values.shape), dtype._name
    if any(n >= 1 << 31 for n in shape):
        raise OverflowError(f"Shape dimension {max(shape)} is outside the supported range [-2147483648, 2147483647]. MLX currently uses 32-bit integers for shape dimensions.")
    if values.size == 0:
        return call("zeros", shape, dtype)
    flat = np.ascontiguousarray(values).reshape(-1)
    if name == "bool":
        a = call("astype", call("array", flat.view(np.uint8)), dtype)
    elif name == "complex64":
        a = call("view", call("array", flat.view(np.float32)), dtype)
    elif name in ("float16", "bfloat16"):
        a = call("view", call("array", flat.view(np.uint16)), dtype)
    elif name in ("int64", "uint64"):
        a = call("view", call("array", flat.view(np.uint32)), dtype)
    else:
        a = call("array", flat)
    return call("reshape", a, shape)


def bfloat16_bits(x):
    """Bits of float32 values rounded to bfloat16, to nearest, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def _cast_send(values, dtype):
    with np.errstate(all="ignore"):
        if dtype._name == "bfloat16":
            return _send(bfloat16_bits(values.real if values.dtype.kind == "c" else values), dtype)
        if values.dtype.kind == "c" and dtype._name != "complex64":
            values = values.real
        return _send(values.astype(_numpy[dtype._name]), dtype)


def _scalar(value, dtype):
    return call("array", value, dtype)


def scalar_array(v, dtype=None):
    """0-d array of a Python scalar next to an array of `dtype`: MLX's weak types."""
    name = dtype._name if dtype else None
    if isinstance(v, (bool, np.bool_)):
        return _scalar(bool(v), dtype or _D["bool"])
    if isinstance(v, int):
        name = name or ("int32" if _INT32.min <= v <= _INT32.max else "int64")
        info = _integers.get(name)
        if info and _D[name].size < 8 and not info.min <= v <= info.max:
            raise ValueError(f"Converting {v} to {name} would result in overflow.")
        name = "int32" if name == "bool" else name
        if abs(v) >= 1 << 53:
            return _cast_send(np.array(v, np.uint64 if v >= 1 << 63 else np.int64), _D[name])
        return _scalar(v, _D[name])
    if isinstance(v, float):
        return _scalar(v, dtype if name and "float" in name else _D["float32"])
    return _scalar(v, _D["complex64"])


def is_scalar(v):
    return isinstance(v, (bool, int, float, complex)) or (isinstance(v, np.generic) and not isinstance(v, np.ndarray))


def to_array(v, dtype=None):
    """What MLX takes where an array or a scalar is expected."""
    if isinstance(v, array):
        return v
    if hasattr(v, "__mlx_array__"):
        return v.__mlx_array__()
    if isinstance(v, (bool, int, float, complex)):
        return scalar_array(v, dtype)
    if isinstance(v, (np.generic, np.ndarray)):
        return _from_numpy(np.asarray(v), dtype)
    if isinstance(v, (list, tuple)) or v is None or isinstance(v, (str, dict)):
        raise ValueError(f"Invalid type {type(v).__name__} received in array initialization.")
    return create(v, dtype)


def _from_numpy(v, dtype):
    if v.dtype.name == "bfloat16":
        a = _send(v.view(np.uint16), _D["bfloat16"])
        return call("astype", a, dtype) if dtype else a
    name = {"float64": "float32", "complex128": "complex64"}.get(v.dtype.name, v.dtype.name)
    if name not in _D:
        raise ValueError("[convert] Cannot convert array to mlx.")
    return _cast_send(v, dtype or _D[name])


_RANK = {bool: 0, int: 1, float: 2, complex: 3}


def _shape_of(v):
    shape = [len(v)]
    if len(v) > 0:
        if isinstance(v[0], (list, tuple)):
            return shape + _shape_of(v[0])
        if isinstance(v[0], array):
            return shape + list(v[0].shape)
    return shape


def _check_list(v, shape, depth):
    """(highest kind of scalar, whether there are arrays) of a nested list; it must be rectangular."""
    if depth >= len(shape):
        raise ValueError("Initialization encountered extra dimension.")
    if len(v) != shape[depth]:
        raise ValueError("Initialization encountered non-uniform length.")
    if len(v) == 0:
        return 2, False
    kind, arrays = 0, False
    for x in v:
        if isinstance(x, (list, tuple)):
            k, inner = _check_list(x, shape, depth + 1)
            arrays |= inner
        elif isinstance(x, array):
            k, arrays = 0, True
            if list(x.shape) != shape[depth + 1 :]:
                raise ValueError("Initialization encountered non-uniform length.")
        else:
            k = _RANK.get(type(x))
            if k is None:
                k = next((r for t, r in reversed(_RANK.items()) if isinstance(x, t)), None)
            if k is None:
                raise ValueError(f"Invalid type {type(x).__name__} received in array initialization.")
            if depth + 1 != len(shape):
                raise ValueError("Initialization encountered non-uniform length.")
        kind = max(kind, k)
    return kind, arrays


def _from_list(v, dtype):
    shape = _shape_of(v)
    kind, arrays = _check_list(v, shape, 0)
    if arrays:
        return call("stack", [create(x, dtype) for x in v], 0)
    if kind == 1:
        values = np.array(v, np.uint64 if dtype is _D["uint64"] else np.int64)
        wide = values.size and (values.max() > _INT32.max or values.min() < _INT32.min)
        if wide and dtype and dtype._name in ("int8", "uint8", "int16", "uint16", "int32"):
            raise RuntimeError("std::bad_cast")
        return _cast_send(values, dtype or _D["int64" if wide else "int32"])
    if kind == 2 and dtype is not _D["float64"]:
        values = np.array(v, np.float64).astype(np.float32).reshape(shape)
    else:
        values = np.array(v, [np.bool_, np.int64, np.float64, np.complex64][kind]).reshape(shape)
    return _cast_send(values, dtype or _D[["bool", "int32", "float32", "complex64"][kind]])


def create(v, dtype=None, copy=True):
    if isinstance(v, np.generic) or isinstance(v, np.ndarray):
        return _from_numpy(np.asarray(v), dtype)
    if isinstance(v, array):
        return call("array", v) if dtype is None or dtype is v.dtype else call("astype", v, dtype)
    if isinstance(v, bool):
        return _scalar(v, dtype or _D["bool"])
    if isinstance(v, int):
        dtype = dtype or _D["int32" if _INT32.min <= v <= _INT32.max else "int64"]
        return _scalar(v, dtype) if abs(v) < 1 << 31 else _cast_send(np.array(v, np.uint64 if v >= 1 << 63 else np.int64), dtype)
    if isinstance(v, float):
        return _scalar(v, dtype or _D["float32"])
    if isinstance(v, complex):
        return _cast_send(np.array(v, np.complex64), dtype or _D["complex64"])
    if isinstance(v, (list, tuple)):
        return _from_list(v, dtype)
    if hasattr(v, "__mlx_array__"):
        a = v.__mlx_array__()
        return a if dtype is None else call("astype", a, dtype)
    if hasattr(v, "__array_interface__") or hasattr(v, "__dlpack__") or isinstance(v, (bytes, bytearray, memoryview)) or hasattr(v, "__buffer__") or hasattr(v, "typecode"):
        return _from_numpy(np.asarray(memoryview(v) if not hasattr(v, "__dlpack__") else np.from_dlpack(v)), dtype)
    raise ValueError(f"Invalid type {type(v).__name__} received in array initialization.")


def _index(i):
    """An index element for the library."""
    if isinstance(i, (np.bool_, bool)):
        raise ValueError("Cannot index mlx array using the given type.")
    if i is None or isinstance(i, array):
        return i
    if i is Ellipsis:
        return "..."
    if isinstance(i, slice):
        return _Slice(i)
    if isinstance(i, list):
        return create(i)
    if isinstance(i, np.ndarray) and i.ndim > 0:
        raise ValueError("Cannot index mlx array using the given type.")
    if hasattr(i, "__index__"):
        return i.__index__()
    raise ValueError("Cannot index mlx array using the given type.")


class _Slice:
    def __init__(self, s):
        for x in (s.start, s.stop, s.step):
            if x is not None and (isinstance(x, bool) or not hasattr(x, "__index__")):
                raise ValueError("Slice indices must be integers or None.")
        self.parts = [None if x is None else x.__index__() for x in (s.start, s.stop, s.step)]
        if any(p is not None and abs(p) >= 1 << 31 for p in self.parts):
            raise ValueError("Slice indices must be 32-bit integers.")


encoders.append((_Slice, lambda s: {"slice": s.parts}))


def _indices(i):
    return [_index(x) for x in i] if isinstance(i, tuple) else [_index(i)]


def _binary(name, what, swap=False, inplace=False, bitwise=None):
    def op(self, other):
        if not isinstance(other, array) and not is_scalar(other) and not isinstance(other, np.ndarray) and not hasattr(other, "__mlx_array__"):
            raise ValueError(f"Cannot perform {what} on an mlx.core.array and {type(other).__name__}")
        b = to_array(other, self.dtype)
        if bitwise and any("float" in x.dtype._name or "complex" in x.dtype._name for x in (self, b)):
            raise ValueError(f"Floating point types not allowed with {bitwise}.")
        if inplace and name == "divide" and "float" not in self.dtype._name and "complex" not in self.dtype._name:
            raise ValueError("In place division cannot cast to non-floating point type.")
        result = call(name, b, self) if swap else call(name, self, b)
        return self._become(result) if inplace else result

    return op


def _equality(name, otherwise):
    def op(self, other):
        if not isinstance(other, array) and not is_scalar(other) and not isinstance(other, np.ndarray) and not hasattr(other, "__mlx_array__"):
            return otherwise
        return call(name, self, to_array(other, self.dtype))

    return op


class ArrayAt:
    def __init__(self, a):
        self._a, self._at = a, None

    def __getitem__(self, indices):
        self._at = _indices(indices)
        return self

    def _update(self, name, value):
        if self._at is None:
            raise ValueError("Must give indices to array.at (e.g. `x.at[0].add(4)`).")
        return request("method", "at", self._a, *self._at).call(name, to_array(value, self._a.dtype))


for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    setattr(ArrayAt, _name, lambda self, value, _name=_name: self._update(_name, value))


class array:
    __slots__ = ("_handle", "_dtype", "_shape", "__weakref__")

    def __init__(self, val, dtype=None):
        if dtype is not None and not isinstance(dtype, Dtype):
            raise TypeError("__init__(): incompatible function arguments: dtype")
        a = create(val, dtype)
        if a is val:
            a = call("array", a)
        self._take(a)

    def _take(self, a):
        self._handle, self._dtype, self._shape = a._handle, a._dtype, a._shape
        a._handle = None

    def _become(self, a):
        """Makes this object stand for another array."""
        if a is not self:
            release(self._handle)
            self._take(call("array", a))
        return self

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            release(self._handle)

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self._dtype)
    ndim = property(lambda self: len(self._shape))
    size = property(lambda self: int(np.prod(self._shape, dtype=np.int64)))
    itemsize = property(lambda self: self._dtype.size)
    nbytes = property(lambda self: self.size * self._dtype.size)
    T = property(lambda self: call("transpose", self))
    real = property(lambda self: call("real", self))
    imag = property(lambda self: call("imag", self))
    at = property(ArrayAt)

    def _bits(self):
        data = bytearray(request("bits", "", self))
        name = self._dtype._name
        return np.frombuffer(data, np.uint16 if name == "bfloat16" else _numpy[name]).reshape(self._shape)

    def _values(self):
        bits = self._bits()
        return (bits.astype(np.uint32) << 16).view(np.float32) if self._dtype._name == "bfloat16" else bits

    def item(self):
        if self.size != 1:
            raise ValueError("[convert] Only length-1 arrays can be converted to Python scalars.")
        return self._values().reshape(()).item()

    def tolist(self):
        return self._values().tolist()

    def __array__(self, dtype=None, copy=None):
        if self._dtype._name == "bfloat16":
            raise TypeError("bfloat16 arrays cannot be converted to NumPy.")
        return self._bits() if copy is False else self._bits().copy()

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return self._bits().__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)

    def __array_namespace__(self, api_version=None):
        if api_version is not None:
            raise ValueError("Explicitly specifying api_version is not yet implemented.")
        import mlx.core

        return mlx.core

    def __getitem__(self, i):
        return request("method", "index", self, *_indices(i))

    def __setitem__(self, i, value):
        at = [create(i) if isinstance(i, (np.ndarray, bool)) else i] if isinstance(i, (array, np.ndarray, bool)) else _indices(i)
        request("method", "indexPut_", self, at, to_array(value, self._dtype))

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() 0-dimensional array.")
        return self._shape[0]

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (request("method", "index", self, i) for i in range(self._shape[0]))

    def __bool__(self):
        return bool(self.item())

    def __int__(self):
        return int(self.item())

    def __float__(self):
        return float(self.item())

    def __complex__(self):
        return complex(self.item())

    def __index__(self):
        if self.ndim or "int" not in self._dtype._name:
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return int(self.item())

    def __repr__(self):
        text = request("method", "toString", self)
        return text.replace("true", "True").replace("false", "False") if self._dtype._name == "bool" else text

    def __format__(self, spec):
        if self.ndim == 0:
            return format(self.item(), spec)
        if spec:
            raise TypeError("unsupported format string passed to mx.array.__format__")
        return repr(self)

    def __copy__(self):
        return call("array", self)

    def __deepcopy__(self, memo):
        return call("array", self)

    def __reduce__(self):
        return (_restore, (self._bits(), self._dtype))

    def reshape(self, *shape, stream=UNDEFINED):
        return call("reshape", self, list(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else list(shape), stream)

    def transpose(self, *axes, stream=UNDEFINED):
        if len(axes) == 1 and isinstance(axes[0], (list, tuple)):
            axes = axes[0]
        return call("transpose", self, list(axes), stream) if axes else call("transpose", self)

    def view(self, dtype, stream=UNDEFINED):
        return call("view", self, dtype, stream)

    def astype(self, dtype, stream=UNDEFINED):
        if not isinstance(dtype, Dtype):
            raise TypeError("astype(): incompatible function arguments: dtype")
        return call("astype", self, dtype, stream)

    __hash__ = object.__hash__
    __eq__ = _equality("equal", False)
    __ne__ = _equality("notEqual", True)
    __neg__ = lambda self: call("negative", self)
    __abs__ = lambda self: call("abs", self)
    __pos__ = lambda self: self

    def __invert__(self):
        if "int" not in self._dtype._name and self._dtype._name != "bool":
            raise ValueError("Floating point types not allowed with bitwise inversion.")
        return call("logicalNot" if self._dtype._name == "bool" else "bitwiseInvert", self)

    def __matmul__(self, other):
        return call("matmul", self, to_array(other))

    def __imatmul__(self, other):
        return self._become(call("matmul", self, other))


for _dunder, _fn, _what in (
    ("add", "add", "addition"), ("sub", "subtract", "subtraction"), ("mul", "multiply", "multiplication"), ("truediv", "divide", "division"), ("div", "divide", "division"),
    ("floordiv", "floorDivide", "floor division"), ("mod", "remainder", "modulus"), ("pow", "power", "power"),
    ("and", "bitwiseAnd", "bitwise and"), ("or", "bitwiseOr", "bitwise or"), ("xor", "bitwiseXor", "bitwise xor"), ("lshift", "leftShift", "left shift"), ("rshift", "rightShift", "right shift"),
):
    _bit = _what if _dunder in ("and", "or", "xor", "lshift", "rshift") else None
    setattr(array, f"__{_dunder}__", _binary(_fn, _what, bitwise=_bit))
    setattr(array, f"__r{_dunder}__", _binary(_fn, _what, swap=True, bitwise=_bit))
    setattr(array, f"__i{_dunder}__", _binary(_fn, "inplace " + _what, inplace=True, bitwise=_bit))
for _dunder, _fn, _what in (("lt", "less", "less than"), ("le", "lessEqual", "less than or equal"), ("gt", "greater", "greater than"), ("ge", "greaterEqual", "greater than or equal")):
    setattr(array, f"__{_dunder}__", _binary(_fn, _what))


def _restore(bits, dtype):
    return _send(bits, dtype)


def _decode(x):
    a = array.__new__(array)
    a._handle, a._dtype, a._shape = x[0], _D[x[1]], tuple(x[2])
    return a


decoders["array"] = _decode
encoders.insert(0, (array, lambda a: {"object": a._handle}))
