"""Dtypes, devices and streams."""
from ._wire import LibraryError, Object, UNDEFINED, call, decoders, encoders, request


class Dtype:
    _known = {}

    def __init__(self, name, size):
        self._name, self.size = name, size
        Dtype._known[name] = self

    def __repr__(self):
        return f"mlx.core.{self._name}"

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return hash(self._name)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return (_dtype, (self._name,))


def _dtype(name):
    return Dtype._known[name]


for _name, _size in dict(bool=1, uint8=1, uint16=2, uint32=4, uint64=8, int8=1, int16=2, int32=4, int64=8, float16=2, bfloat16=2, float32=4, float64=8, complex64=8).items():
    Dtype(_name, _size)
decoders["dtype"] = Dtype._known.__getitem__
encoders.append((Dtype, lambda d: {"constant": d._name}))


class DtypeCategory:
    def __init__(self, name):
        self._name = name


encoders.append((DtypeCategory, lambda c: {"constant": c._name}))
categories = {n: DtypeCategory(n) for n in "complexfloating floating inexact signedinteger unsignedinteger integer number generic".split()}


class DeviceType:
    def __init__(self, name):
        self._name = name

    def __eq__(self, other):
        return self is other or (isinstance(other, Device) and other == self)

    def __hash__(self):
        return hash(self._name)

    def __repr__(self):
        return f"DeviceType.{self._name}"


cpu, gpu = DeviceType("cpu"), DeviceType("gpu")
DeviceType.cpu, DeviceType.gpu = cpu, gpu


class Device:
    def __init__(self, type, index=0):
        self.type, self.index = type, index

    def __eq__(self, other):
        if isinstance(other, DeviceType):
            return self.type is other
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self):
        return hash((self.type, self.index))

    def __repr__(self):
        return f"Device({self.type._name}, {self.index})"


def _encode_device(d):
    if d.index == 0:
        return {"constant": d.type._name}
    d._js = getattr(d, "_js", None) or request("new", "Device", d.type._name, d.index)
    return {"object": d._js.handle}


decoders["device"] = lambda x: Device(DeviceType.__dict__[x[0]], x[1])
encoders.append((DeviceType, lambda d: {"constant": d._name}))
encoders.append((Device, _encode_device))


class Stream(Object):
    def __init__(self, x):
        super().__init__(x[0])
        self.device, self.index = decoders["device"]([x[1], 0]), x[2]

    def __eq__(self, other):
        return isinstance(other, Stream) and (self.device, self.index) == (other.device, other.index)

    def __hash__(self):
        return hash(self.index)

    def __repr__(self):
        return f"Stream({self.device}, {self.index})"


decoders["stream"] = Stream


class StreamContext:
    """`with mx.stream(s):`"""

    def __init__(self, s):
        self._s = s

    def __enter__(self):
        self._scope = call("stream", self._s)

    def __exit__(self, *_error):
        self._scope.call("dispose")


stream = StreamContext


class finfo:
    def __init__(self, dtype):
        for name, value in call("finfo", dtype).items():
            setattr(self, {"smallestNormal": "smallest_normal"}.get(name, name), value)

    def __repr__(self):
        return f"finfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype._name})"


class iinfo:
    def __init__(self, dtype):
        info = call("iinfo", dtype)
        self.min, self.max, self.dtype = int(info["min"]), int(info["max"]), dtype

    def __repr__(self):
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype._name})"
