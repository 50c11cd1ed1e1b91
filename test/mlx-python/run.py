#!/usr/bin/env python3
"""Runs MLX's Python tests on the library. Usage: run.py MLX_CHECKOUT [--out FOLDER] [-k PATTERN] [test_ops ...]"""
import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import unittest

here = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TestResult):
    """Writes one line per case: state, name, seconds, first line of the error."""

    def __init__(self, out):
        super().__init__()
        self._out, self._failed = out, {}

    def startTest(self, test):
        super().startTest(test)
        signal.alarm(int(os.environ["MLX_BRIDGE_SECONDS"]))
        self._start = time.time()
        self._state = ("pass", "")

    def stopTest(self, test):
        signal.alarm(0)
        state, text = self._state
        self._out.write(f"{state}\t{test.id().split('.', 1)[1]}\t{time.time() - self._start:.1f}\t{text}\n")
        self._out.flush()

    def _fail(self, state, error):
        if self._state[0] != "pass":
            return
        trace = traceback.extract_tb(error[2])
        own = [f for f in trace if "tests" in f.filename]
        at = f"{own[-1].lineno}: {own[-1].line}" if own else ""
        message = " ".join(str(error[1]).split())[:300]
        self._state = (state, f"{error[0].__name__}: {message}\t{at}")
        if os.environ.get("MLX_BRIDGE_TRACE"):
            traceback.print_exception(*error)

    def addFailure(self, test, error):
        self._fail("fail", error)

    def addError(self, test, error):
        self._fail("error", error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self._fail("fail", error)

    def addSkip(self, test, reason):
        self._state = ("skip", reason)


def run_file(name, pattern):
    """Runs one test file in this process."""
    from mlx.core import _wire

    # A case that takes too long loses its JavaScript process; the next case starts a new one.
    signal.signal(signal.SIGALRM, lambda *_: _wire.kill())
    loader = unittest.TestLoader()
    if pattern:
        loader.testNamePatterns = [p if "*" in p else f"*{p}*" for p in pattern.split(",")]
    suite = loader.loadTestsFromName(name)
    out = os.fdopen(int(os.environ["MLX_BRIDGE_OUT"]), "w")
    for error in loader.errors:
        out.write(f"error\t{name}\t0\t{error.strip().splitlines()[-1]}\n")
    suite.run(Result(out))


def run_in_process(name, options, tests, lines):
    """Runs one file in a process of its own."""
    read, write = os.pipe()
    env = dict(os.environ, MLX_PYTHON=os.path.dirname(tests), PYTHONPATH=os.pathsep.join([here, tests]), MLX_BRIDGE_OUT=str(write), MLX_BRIDGE_SECONDS=str(options.seconds))
    command = [sys.executable, __file__, options.checkout, "--inside", name] + (["-k", options.k] if options.k else [])
    process = subprocess.Popen(command, env=env, cwd=tests, pass_fds=[write])
    os.close(write)
    timer = threading.Timer(options.timeout, process.kill)
    timer.daemon = True
    timer.start()
    with os.fdopen(read) as f:
        for line in f:
            lines.append((name, *line.rstrip("\n").split("\t")))
    process.wait()
    timer.cancel()
    if process.returncode not in (0, 1):
        lines.append((name, "error", name, "0", f"the process ended with code {process.returncode}"))


def report(lines, out):
    files = {}
    for line in lines:
        row = files.setdefault(line[0], dict.fromkeys(("pass", "fail", "error", "skip"), 0))
        row[line[1]] += 1
    total = {k: sum(row[k] for row in files.values()) for k in ("pass", "fail", "error", "skip")}
    table = [f"{'file':24}" + "".join(f"{k:>7}" for k in total)]
    table += [f"{name:24}" + "".join(f"{v:7}" for v in row.values()) for name, row in [*sorted(files.items()), ("total", total)]]
    if out:
        os.makedirs(out, exist_ok=True)
        with open(os.path.join(out, "table.txt"), "w") as f:
            f.write("\n".join(table) + "\n")
        for name, states in (("failures.tsv", ("fail", "error")), ("skipped.tsv", ("skip",)), ("passed.tsv", ("pass",))):
            with open(os.path.join(out, name), "w") as f:
                f.writelines("\t".join((line[0], *line[2:])) + "\n" for line in lines if line[1] in states)
    return "\n".join(table)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout")
    parser.add_argument("--out")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one file")
    parser.add_argument("--seconds", type=int, default=300, help="seconds for one case")
    parser.add_argument("--inside", action="store_true")
    parser.add_argument("-k")
    parser.add_argument("files", nargs="*")
    options = parser.parse_intermixed_args()
    if options.inside:
        return run_file(options.files[0], options.k)
    tests = os.path.join(os.path.abspath(options.checkout), "python", "tests")
    names = options.files or sorted(f[:-3] for f in os.listdir(tests) if f.startswith("test_") and f.endswith(".py"))
    lines = []
    for name in names:
        run_in_process(name, options, tests, lines)
        table = report(lines, options.out)
    print(table)
    return 1 if any(line[1] in ("fail", "error") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
