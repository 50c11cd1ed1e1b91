"""Function transforms. The library gets functions of lists of arrays; the nestings of Python are taken apart and put together here."""
import functools
import itertools

from ._array import array
from ._wire import call, request


def visit(tree, f):
    """Calls f on every leaf."""
    if isinstance(tree, (list, tuple)):
        for x in tree:
            visit(x, f)
    elif isinstance(tree, dict):
        for x in tree.values():
            visit(x, f)
    elif hasattr(tree, "__mlx_tree__"):
        visit(tree.__mlx_tree__(), f)
    else:
        f(tree)


def arrays_of(tree, op=None):
    found = []

    def add(x):
        if isinstance(x, array):
            found.append(x)
        elif op:
            raise ValueError(f"[{op}] The argument should contain only arrays")

    visit(tree, add)
    return found


def rebuild(tree, f):
    """A tree of the same form with f(leaf) for each leaf."""
    if isinstance(tree, list):
        return [rebuild(x, f) for x in tree]
    if isinstance(tree, tuple):
        items = [rebuild(x, f) for x in tree]
        return tuple(items) if type(tree) is tuple else type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {k: rebuild(x, f) for k, x in tree.items()}
    return f(tree)


def with_arrays(tree, arrays):
    rest = iter(arrays)
    return rebuild(tree, lambda x: next(rest) if isinstance(x, array) else x)


def fill(tree, f):
    """Replaces the arrays of a tree by f(array), in the lists and dicts themselves; tuples are made new."""
    if isinstance(tree, list):
        for i, x in enumerate(tree):
            tree[i] = fill(x, f)
    elif isinstance(tree, tuple):
        return rebuild_tuple(tree, [fill(x, f) for x in tree])
    elif isinstance(tree, dict):
        for k, x in list(tree.items()):
            tree[k] = fill(x, f)
    elif hasattr(tree, "__mlx_tree__"):
        tree.__mlx_fill__(f)
    elif isinstance(tree, array):
        return f(tree)
    return tree


def rebuild_tuple(old, items):
    return tuple(items) if type(old) is tuple else type(old)(*items) if hasattr(old, "_fields") else type(old)(items)


def fill_with(tree, arrays):
    rest = iter(arrays)
    return fill(tree, lambda _a: next(rest))


# --- gradients ---


def _numbers(tag, argnums, argnames):
    names = {argnames} if isinstance(argnames, str) else set(argnames)
    if argnums is None:
        numbers = [] if names else [0]
    else:
        numbers = sorted([argnums] if isinstance(argnums, int) else list(argnums))
    if not numbers and not names:
        raise ValueError(f"{tag} Gradient wrt no argument requested")
    if numbers and numbers[0] < 0:
        raise ValueError(f"{tag} Can't compute the gradient of negative argument index {numbers[0]}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{tag} Duplicate argument index {numbers[0]} is not allowed.")
    return numbers, names


def _check_loss(tag, value, scalar_only):
    if isinstance(value, array):
        return
    if scalar_only or not isinstance(value, tuple) or not value or not isinstance(value[0], array):
        raise ValueError(f"{tag} The return value of the function should be a scalar array, or a tuple that starts with one; but {type(value).__name__} was returned.")


def _differentiate(tag, fun, argnums, argnames, scalar_only):
    if not callable(fun):
        raise TypeError(f"{tag} incompatible function arguments")
    numbers, names = _numbers(tag, argnums, argnames)

    def both(*args, **kwargs):
        if numbers and numbers[-1] >= len(args):
            raise ValueError(f"{tag} Can't compute the gradient of argument index {numbers[-1]} because the function is called with only {len(args)} positional arguments.")
        for key in names:
            if key not in kwargs:
                raise ValueError(f"{tag} Can't compute the gradient of keyword argument '{key}'")
        chosen = [args[i] for i in numbers] + [v for k, v in kwargs.items() if k in names]
        primals = [a for tree in chosen for a in arrays_of(tree, "tree_flatten")]
        value = None

        def run(tracers):
            nonlocal value
            back = {id(t): a for a, t in zip(primals, tracers)}
            restore = lambda a: back.get(id(a), a)
            rest = iter(tracers)
            call_args = [fill_with(a, rest) if i in numbers else a for i, a in enumerate(args)]
            call_kwargs = {k: fill_with(v, rest) if k in names else v for k, v in kwargs.items()}
            try:
                value = fun(*call_args, **call_kwargs)
            finally:
                for i in numbers:
                    fill(call_args[i], restore)
                for k in names:
                    fill(call_kwargs[k], restore)
            _check_loss(tag, value, scalar_only)
            return arrays_of(value)

        values, gradients = request("apply", "", call("valueAndGrad", run), primals)
        rest = iter(gradients)
        trees = [rebuild(tree, lambda x: next(rest) if isinstance(x, array) else x) for tree in chosen]
        positional = tuple(trees[: len(numbers)])
        grads = positional[0] if len(numbers) == 1 else positional if numbers else None
        if names:
            grads = (grads, dict(zip([k for k in kwargs if k in names], trees[len(numbers) :])))
        return with_arrays(value, values), grads

    return both


def value_and_grad(fun, argnums=None, argnames=()):
    return _differentiate("[value_and_grad]", fun, argnums, argnames, False)


def grad(fun, argnums=None, argnames=()):
    both = _differentiate("[grad]", fun, argnums, argnames, True)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def _listed(fun):
    def run(*inputs):
        out = fun(*inputs)
        return [out] if isinstance(out, array) else list(out)

    return run


def vjp(fun, primals, cotangents):
    return tuple(call("vjp", _listed(fun), list(primals), list(cotangents)))


def jvp(fun, primals, tangents):
    return tuple(call("jvp", _listed(fun), list(primals), list(tangents)))


# --- vmap ---


def _axes(tree, axes, output):
    """Axis for each array of a tree from a prefix tree of axes."""
    if isinstance(axes, (list, tuple, dict)) and isinstance(tree, (list, tuple, dict)):
        if isinstance(axes, dict) != isinstance(tree, dict) or (not isinstance(axes, dict) and (type(axes) is not type(tree) or len(axes) != len(tree))):
            raise ValueError("[tree_map] Additional input tree is not a valid prefix of the first tree.")
        if isinstance(axes, dict) and not set(tree) <= set(axes):
            raise ValueError("[tree_map] Tree is not a valid prefix tree of the first tree.")
        pairs = [(tree[k], axes[k]) for k in tree] if isinstance(tree, dict) else zip(tree, axes)
        return [x for t, a in pairs for x in _axes(t, a, output)]
    if isinstance(tree, (list, tuple)):
        return [x for t in tree for x in _axes(t, axes, output)]
    if isinstance(tree, dict):
        return [x for t in tree.values() for x in _axes(t, axes, output)]
    if not isinstance(tree, array):
        raise ValueError("[vmap] The arguments should contain only arrays")
    if isinstance(axes, tuple) and len(axes) == 1:
        axes = axes[0]
    if axes is not None and not isinstance(axes, int):
        raise ValueError("[vmap] axis must be int or None.")
    if axes is not None and not -tree.ndim - output <= axes < tree.ndim + output:
        raise ValueError(f"[vmap] Invalid vectorization axis {axes} for array with shape {tree.shape}")
    # In a list -1 means "not batched" to the library.
    return [axes if axes is None or axes >= 0 else axes + tree.ndim + output]


def vmap(fun, in_axes=0, out_axes=0):
    if not callable(fun):
        raise TypeError("vmap(): incompatible function arguments")

    def batched(*args):
        inputs = arrays_of(args, "tree_flatten")
        flat_in = _axes(args[0] if len(args) == 1 else args, in_axes, 0)
        flat_out = out_axes
        if isinstance(out_axes, (list, tuple, dict)):
            flat_out = []
            visit(out_axes, flat_out.append)
        out = None

        def run(*xs):
            nonlocal out
            out = fun(*with_arrays(args, xs))
            arrays = arrays_of(out, "tree_flatten")
            _axes(out, out_axes, 1)
            return arrays

        # No axes at all for the outputs is a number's meaning only if it is one.
        results = request("apply", "", call("vmap", run, flat_in, flat_out if flat_out is not None else [None] * 64), *inputs)
        return with_arrays(out, results)

    return batched


# --- compile, checkpoint, custom functions ---


class _Key:
    """The part of arguments or results that is no array, as text and as the tree to fill."""

    known = {}
    count = itertools.count(1)

    @classmethod
    def of(cls, tree):
        number = str(next(cls.count))
        cls.known[number] = tree
        return number


def _constants(tree):
    """Text of all that is not an array in a tree of arguments."""
    if isinstance(tree, array):
        return "<array>"
    if isinstance(tree, (list, tuple)):
        return "[" + ",".join(_constants(x) for x in tree) + "]"
    if isinstance(tree, dict):
        return "{" + ",".join(f"{k!r}:{_constants(x)}" for k, x in tree.items()) + "}"
    if tree is None or isinstance(tree, (str, int, float)):
        return repr(tree)
    raise ValueError(f"[compile] Function arguments must be trees of arrays or constants (floats, ints, strings, or None), but received type {type(tree).__name__}.")


def compile(fun, inputs=None, outputs=None, shapeless=False):
    if not callable(fun):
        raise TypeError("compile(): incompatible function arguments")
    current = None

    def run(key, *xs):
        args, kwargs, count = current
        captured = arrays_of(inputs) if inputs is not None else []
        tracers = list(xs[count:])
        if inputs is not None:
            fill_with(inputs, tracers)
        try:
            new_args, new_kwargs = with_arrays((args, kwargs), xs[:count])
            result = fun(*new_args, **new_kwargs)
            flat = arrays_of(result)
            extra = arrays_of(outputs) if outputs is not None else []
        finally:
            if inputs is not None:
                back = {id(t): c for t, c in zip(tracers, captured)}
                fill(inputs, lambda a: back.get(id(a), a))
        return [_Key.of(rebuild(result, lambda x: _HOLE if isinstance(x, array) else x)), len(flat), *flat, *extra]

    compiled = call("compile", run, bool(shapeless))

    def compiled_fun(*args, **kwargs):
        nonlocal current
        flat = arrays_of((args, kwargs))
        key = _constants(args) + _constants(kwargs)
        captured = arrays_of(inputs) if inputs is not None else []
        before, current = current, (args, kwargs, len(flat))
        try:
            structure, count, *arrays = request("apply", "", compiled, key, *flat, *captured)
        finally:
            current = before
        if outputs is not None:
            fill_with(outputs, arrays[count:])
        rest = iter(arrays[:count])
        return rebuild(_Key.known[structure], lambda x: next(rest) if x is _HOLE else x)

    return functools.update_wrapper(compiled_fun, fun)


_HOLE = object()


def checkpoint(fun):
    def wrapped(*args, **kwargs):
        out = None

        def run(*xs):
            nonlocal out
            new_args, new_kwargs = with_arrays((args, kwargs), xs)
            out = fun(*new_args, **new_kwargs)
            return arrays_of(out)

        results = request("apply", "", call("checkpoint", run), *arrays_of((args, kwargs)))
        return with_arrays(out, results)

    return wrapped


class custom_function:
    """Function whose rules can be given with the decorators .vjp, .jvp and .vmap."""

    def __init__(self, f):
        self._f, self._rules = f, {}

    def _set(self, name, rule):
        self._rules[name] = rule
        return self

    def vjp(self, f):
        return self._set("vjp", f)

    def jvp(self, f):
        return self._set("jvp", f)

    def vmap(self, f):
        return self._set("vmap", f)

    def __call__(self, *args, **kwargs):
        if not self._rules:
            return self._f(*args, **kwargs)
        form = None

        def run(*xs):
            nonlocal form
            new_args, new_kwargs = with_arrays((args, kwargs), xs)
            form = self._f(*new_args, **new_kwargs)
            return arrays_of(form)

        def inputs(xs):
            new_args, new_kwargs = with_arrays((args, kwargs), xs)
            return (new_args[0] if len(new_args) == 1 else new_args), new_kwargs

        def one(tree):
            return tree[0] if len(args) == 1 else tree

        def leaves(values):
            rest = iter(values)
            return one(rebuild(args, lambda x: next(rest) if isinstance(x, array) else None))

        def vjp(primals, cotangents, results):
            xs, kw = inputs(primals)
            return arrays_of(self._rules["vjp"](xs, with_arrays(form, cotangents), with_arrays(form, results), **kw))

        def jvp(primals, tangents):
            return arrays_of(self._rules["jvp"](inputs(primals)[0], leaves(tangents)))

        def vmap(xs, axes):
            result = self._rules["vmap"](inputs(xs)[0], leaves(axes))
            if not isinstance(result, tuple) or len(result) != 2:
                raise ValueError("[custom vmap] Vmap function should return a tuple with 2 items.")
            flat = []
            visit(result[1], flat.append)
            return [arrays_of(result[0]), flat]

        f = call("customFunction", run)
        for name, rule in (("vjp", vjp), ("jvp", jvp), ("vmap", vmap)):
            if name in self._rules:
                f.call(name, rule)
        results = request("apply", "", f, *arrays_of((args, kwargs)))
        return with_arrays(form, results if isinstance(results, list) else [results])


def eval(*args):
    call("eval", arrays_of(args))


def async_eval(*args):
    call("asyncEval", arrays_of(args))
