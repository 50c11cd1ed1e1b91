"""The pipe to the JavaScript process: calls, values, and Python functions that are called back."""
import atexit
import itertools
import json
import math
import os
import struct
import subprocess
import threading

import numpy as np

_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class LibraryError(ValueError, RuntimeError, TypeError, IndexError, OverflowError):
    """An error that the library threw. JavaScript has fewer kinds of errors than Python: this one counts as all that MLX raises."""


class Undefined:
    """An argument that was not given."""


UNDEFINED = Undefined()
lock = threading.RLock()
_process = None
_to = _from = None
_released = []
_functions = {}
_function_ids = {}
_errors = {}
_ids = itertools.count(1)
#: A new process after a crash: its handles have other numbers, so that old ones mean nothing there.
_generations = itertools.count(0)
#: Filled by the other modules: makes Python objects of tagged values, and tagged values of Python objects.
decoders = {}
encoders = []


def _start():
    global _process, _to, _from
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    library = os.environ.get("MLX_VK_LIBRARY")
    command = [os.environ.get("NODE", "node"), "--import", "tsx", os.path.join(_FOLDER, "server.ts"), str(to_read), str(from_write), str(next(_generations) * 10**9)]
    cwd = os.path.dirname(os.path.dirname(_FOLDER))
    _process = subprocess.Popen(command + ([library] if library else []), pass_fds=[to_read, from_write], stdin=subprocess.DEVNULL, cwd=cwd)
    os.close(to_read)
    os.close(from_write)
    _to = os.fdopen(to_write, "wb")
    _from = os.fdopen(from_read, "rb", buffering=1 << 20)
    atexit.register(_stop)


def _stop():
    global _process, _to
    process, _process = _process, None
    if process is None:
        return None
    try:
        _to.close()
    except BrokenPipeError:
        pass
    _functions.clear()
    _function_ids.clear()
    return process.wait()


def kill():
    """Ends the JavaScript process in the middle of whatever it does."""
    if _process is not None:
        _process.kill()


def _read(n):
    data = _from.read(n)
    if len(data) < n:
        raise SystemError(f"the JavaScript process ended with code {_stop()}")
    return data


def _send(message, blobs=()):
    if _released:
        message["release"] = _released[:]
        del _released[: len(message["release"])]
    text = json.dumps(message).encode()
    try:
        _to.write(struct.pack("<II", len(text), sum(len(b) for b in blobs)) + text)
        for b in blobs:
            _to.write(b)
        _to.flush()
    except BrokenPipeError:
        raise SystemError(f"the JavaScript process ended with code {_stop()}") from None


def release(handle):
    if _released is not None:  # the interpreter is closing
        _released.append(handle)


def encode(v, blobs):
    """JSON for a value; bytes go to `blobs`."""
    if v is None or v is True or v is False or isinstance(v, str):
        return v
    if v is UNDEFINED:
        return {"undefined": 0}
    if type(v) is int:
        return v if abs(v) < 1 << 53 else {"big": str(v)}
    if isinstance(v, (float, np.floating)):
        v = float(v)
        return v if math.isfinite(v) else {"number": "nan" if math.isnan(v) else "inf" if v > 0 else "-inf"}
    if isinstance(v, (np.integer, np.bool_)):
        return v.item()
    if isinstance(v, complex):
        return {"complex": [v.real, v.imag]}
    if isinstance(v, (list, tuple)):
        return [encode(x, blobs) for x in v]
    for kind, f in encoders:
        if isinstance(v, kind):
            return f(v)
    if isinstance(v, dict):
        return {"map": [[str(k), encode(x, blobs)] for k, x in v.items()]}
    if isinstance(v, np.ndarray):
        data = v.tobytes()
        blobs.append(data)
        return {"bytes": [sum(len(b) for b in blobs[:-1]), len(data), v.dtype.name]}
    if callable(v):
        return {"function": function_id(v)}
    raise TypeError(f"incompatible function arguments: {type(v).__name__}")


def function_id(f):
    known = _function_ids.get(id(f))
    if known is None:
        known = next(_ids)
        _functions[known] = f
        _function_ids[id(f)] = known
    return known


def decode(v):
    if isinstance(v, list):
        return [decode(x) for x in v]
    if not isinstance(v, dict):
        return v
    [(tag, x)] = v.items()
    if tag == "map":
        return {k: decode(y) for k, y in x}
    if tag == "number":
        return float(x)
    if tag == "big":
        return int(x)
    return decoders[tag](x)


decoders["object"] = lambda handle: Object(handle)


class Object:
    """Any other JavaScript object or function."""

    def __init__(self, handle):
        self.handle = handle

    def __del__(self):
        release(self.handle)

    def __call__(self, *args):
        return request("apply", "", self, *args)

    def call(self, name, *args):
        return request("method", name, self, *args)


encoders.append((Object, lambda o: {"object": o.handle}))


def _callback(number, args):
    """Runs a Python function for JavaScript and answers."""
    try:
        blobs = []
        result = _functions[number](*decode(args))
        answer = {"returned": encode(result, blobs)}
    except BaseException as e:  # every error must come out of the outer call unchanged
        number = next(_ids)
        _errors[number] = e
        blobs, answer = [], {"raised": [number, f"{type(e).__name__}: {e}"]}
    _send(answer, blobs)
    # The result lives until it was sent: its arrays are not to be released before.


def request(op, name, *args):
    """Does one request; serves callbacks meanwhile."""
    with lock:
        if _process is None:
            _start()
        blobs = []
        _send({"op": op, "name": name, "args": encode(list(args), blobs)}, blobs)
        while True:
            size, extra = struct.unpack("<II", _read(8))
            message = json.loads(_read(size))
            data = _read(extra) if extra else b""
            for number in message.get("freed", ()):
                f = _functions.pop(number, None)
                _function_ids.pop(id(f), None)
            if "callback" in message:
                _callback(message["callback"], message["args"])
            elif "python" in message:
                raise _errors.pop(message["python"])
            elif "error" in message:
                kind, text, stack = message["error"]
                raise LibraryError(text + (f"\n{stack}" if stack else ""))
            else:
                return data if op == "bits" else decode(message["value"])


def call(name, *args):
    """Calls a function of the library by its path; arguments at the end that were not given are not sent."""
    args = list(args)
    while args and args[-1] is UNDEFINED:
        args.pop()
    return request("call", name, *args)
