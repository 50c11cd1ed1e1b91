/** exportFunction, exporter, importFunction, exportToDot: what comes back, which arguments fit, damaged and hostile files. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { core as mx, nn } from "../src/index.ts";

type A = mx.MxArray;
const folder = mkdtempSync(join(tmpdir(), "mlx-vk-export-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, "f.mlxfn");
/** Exports, imports, and compares on arguments of other values. */
function same(f: (...xs: A[]) => A | A[], shapes: number[][], dtype = mx.float32): void {
  const draw = (): A[] => shapes.map((s) => mx.random.uniform(0.1, 1, s).astype(dtype));
  mx.exportFunction(path, f, draw());
  const xs = draw();
  const want = f(...xs);
  const got = mx.importFunction(path)(...xs);
  (Array.isArray(want) ? want : [want]).forEach((w, i) => {
    expect([got[i]?.shape, got[i]?.dtype]).toEqual([w.shape, w.dtype]);
    expect(mx.allclose(got[i] as A, w, 1e-5, 1e-6, true).item()).toBe(true);
  });
}

describe("round trip", () => {
  const cases: [string, (...xs: A[]) => A | A[], number[][]][] = [
    ["elementwise", (x) => mx.abs(mx.sin(x)), [[5]]],
    ["a list of results", (x, y) => [mx.add(x, y), mx.multiply(x, 2)], [[2, 3], [3]]],
    ["constants that are not finite", (x) => mx.where(mx.greater(x, 0.5), mx.array([Number.POSITIVE_INFINITY, -0, Number.NaN]), x), [[3]]],
    ["dtypes", (x) => x.astype(mx.float16).astype(mx.int32), [[4]]],
    ["slices and indices", (x) => x.index(mx.Slice(1, null, 2), mx.array([2, 0], mx.int32)), [[5, 3]]],
    ["update in place", (x) => {
      x.indexPut_(1, mx.array([7, 8, 9]));
      return x;
    }, [[4, 3]]],
    ["scatter", (x) => x.at(mx.array([0, 0, 1], mx.int32)).add(mx.array([1, 1, 1])), [[3]]],
    ["takeAlongAxis, putAlongAxis", (x) => mx.putAlongAxis(x, mx.argsort(x, 0), mx.takeAlongAxis(x, mx.argsort(x, 0), 0), 0), [[4, 4]]],
    ["convolution", (x, w) => mx.conv2d(x, w, [2, 1], [1, 0]), [[2, 7, 6, 3], [4, 3, 3, 3]]],
    ["norms and attention", (x) => mx.fast.scaledDotProductAttention(mx.fast.rmsNorm(x, mx.ones([8]), 1e-5), x, x, 0.3, "causal"), [[1, 2, 5, 8]]],
    ["rope, cumsum, softmax", (x) => mx.softmax(mx.cumsum(mx.fast.rope(x, 8, false, 10000, 1, 2), -1), -1), [[1, 2, 5, 8]]],
    ["random numbers by key", (x) => mx.add(x, mx.random.normal([3], mx.float32, 0, 1, mx.random.key(3))), [[3]]],
    ["reshape, transpose, pad, concatenate, split", (x) => mx.split(mx.concatenate([mx.pad(mx.transpose(x), [[1, 0], [0, 2]]), mx.zeros([4, 4])], 1), 2, 1), [[2, 3]]],
    ["fft", (x) => mx.abs(mx.fft.rfft(x)), [[8]]],
    ["linalg", (x) => mx.linalg.cholesky(mx.add(mx.matmul(x, mx.transpose(x)), mx.eye(3)), false, mx.cpu), [[3, 3]]],
    ["a gradient", (x) => mx.grad((a: A) => mx.sum(mx.exp(mx.square(a))))(x) as A, [[3]]],
  ];
  test.each(cases)("%s", (_name, f, shapes) => same(f, shapes));
  test("no inputs; random numbers of the time of the export", () => {
    mx.exportFunction(path, () => mx.zeros([3, 3]));
    expect(mx.importFunction(path)()[0]?.tolist()).toEqual(mx.zeros([3, 3]).tolist());
    mx.random.seed(5);
    mx.exportFunction(path, () => mx.random.uniform(0, 1, [3]));
    mx.random.seed(5);
    expect(mx.importFunction(path)()[0]?.tolist()).toEqual(mx.random.uniform(0, 1, [3]).tolist());
  });
  test("a captured array that is not evaluated is stored as its computation, unless no file can hold that", () => {
    const lazy = mx.zeros([1 << 16]);
    mx.exportFunction(path, (x: A) => mx.add(x, lazy), mx.zeros([1]));
    expect(statSync(path).size).toBeLessThan(4096);
    expect(mx.importFunction(path)(mx.ones([1]))[0]?.size).toBe(1 << 16);
    const custom = mx.customFunction((x: A) => mx.sin(x));
    custom.vjp((_p, g) => g);
    const captured = custom(mx.zeros([1 << 16])) as A;
    mx.exportFunction(path, (x: A) => mx.add(x, captured), mx.zeros([1]));
    expect(statSync(path).size).toBeGreaterThan(1 << 18);
    expect((mx.importFunction(path)(mx.ones([1]))[0] as A).index(5).item()).toBe(1);
  });
  test("a model with quantized layers, of other lengths too", () => {
    const model = new nn.Sequential(new nn.Linear(64, 128), new nn.ReLU(), new nn.Linear(128, 64));
    nn.quantize(model);
    const f = (x: A): A => model.forward(x) as A;
    mx.exportFunction(path, f, mx.ones([3, 64]), null, true);
    const x = mx.random.normal([7, 64]);
    expect(mx.importFunction(path)(x)[0]?.tolist()).toEqual(f(x).tolist());
  });
  test("an imported function is transformed and compiled", () => {
    mx.exportFunction(path, (x: A) => mx.sum(mx.square(x)), mx.zeros([3]));
    const f = mx.importFunction(path);
    const x = mx.array([1, 2, 3]);
    expect((mx.grad((a: A) => f(a)[0] as A)(x) as A).tolist()).toEqual([2, 4, 6]);
    expect((mx.compile((a: A) => f(a))(x)[0] as A).item()).toBe(14);
    expect(mx.vmap((a: A) => f(a)[0] as A)(mx.ones([2, 3])).tolist()).toEqual([3, 3]);
  });
});

describe("arguments", () => {
  const [x, y] = [mx.array([1, 2, 3]), mx.array([2, 2, 2])];
  const f = (a: A, { z }: { z?: A } = {}): A => (z ? mx.add(a, z) : a);
  test("by name", () => {
    mx.exportFunction(path, f, [x], { z: y });
    const g = mx.importFunction(path);
    expect([g(x, { z: y })[0]?.tolist(), g([x], { z: y })[0]?.tolist()]).toEqual([[3, 4, 5], [3, 4, 5]]);
    for (const wrong of [() => g(x, y), () => g(x, { y }), () => g(x), () => g({ x, z: y })]) expect(wrong).toThrow("[importFunction] the function was not exported for these arguments");
    mx.exportFunction(path, ({ a, b }: { a: A; b: A }) => mx.subtract(a, b), null, { b: x, a: y });
    expect([mx.importFunction(path)({ a: x, b: y })[0]?.tolist(), mx.importFunction(path)({ b: x, a: y })[0]?.tolist()]).toEqual([[-1, 0, 1], [1, 0, -1]]);
  });
  test("several sets, with the constants they share stored once", () => {
    const constant = mx.zeros([16, 2048]);
    mx.eval(constant);
    const e = mx.exporter(path, (...args: A[]) => args.reduce((a, b) => mx.add(a, b), mx.add(constant, 0)));
    for (let i = 0; i < 5; i++) e(...new Array<A>(i).fill(mx.array(1)));
    e.close();
    expect(() => e(x)).toThrow("[exporter] the file was written already");
    expect(statSync(path).size).toBeLessThan(constant.nbytes + 8192);
    const g = mx.importFunction(path);
    expect((g(mx.array(1), mx.array(2))[0] as A).index(0, 0).item()).toBe(3);
    expect(() => g(mx.array([1, 2]))).toThrow("got (float32(2))");
  });
  test("each set has its own computation", () => {
    const h = (a: A): A => {
      let out = mx.array(a.shape[0] as number);
      for (let j = 0; j < 10; j++) out = mx.add(out, (a.shape[0] as number) + j);
      return mx.multiply(out, mx.sum(a));
    };
    const sizes = [1, 2, 3];
    {
      using e = mx.exporter(path, h);
      for (const n of sizes) e(mx.ones([n]));
    }
    for (const n of sizes) expect(mx.importFunction(path)(mx.ones([n]))[0]?.item()).toBe(h(mx.ones([n])).item());
  });
  test("metadata", () => {
    mx.exportFunction(path, f, x, null, false, "{\"lr\": 0.1}");
    expect(mx.importFunction(path, true)[1]).toBe("{\"lr\": 0.1}");
    mx.exportFunction(path, f, x);
    expect(mx.importFunction(path, true)[1]).toBe("");
    expect(() => mx.exportFunction(path, f, x, null, false, { name: 1 } as never)).toThrow(TypeError);
    expect(() => mx.exportFunction(() => {}, f, x, null, false, "text")).toThrow("[exportFunction] metadata is stored in files only");
  });
  test("what can not be exported", () => {
    const bad: [() => unknown, string][] = [
      [() => mx.exportFunction(path, f, "hi" as never), "arguments must be arrays"],
      [() => mx.exportFunction(path, f, [[x]] as never), "arguments must be arrays"],
      [() => mx.exportFunction(path, (() => [x, 1]) as never), "must return an array or an Array of arrays, got number"],
      [() => mx.exportFunction(path, (() => [x, [x]]) as never), "got an Array in it"],
      [() => mx.exportFunction(path, (a: A) => mx.add(a, x), x), "reaches one of its inputs"],
      [() => mx.exportFunction(path, 3 as never), "expected a function"],
    ];
    for (const [run, message] of bad) expect(run).toThrow(message);
    const custom = mx.customFunction((a: A) => mx.sin(a));
    custom.vjp((_p, g) => g);
    expect(() => mx.exportFunction(path, custom as never, x)).toThrow("[exportFunction] custom can not be exported: its parameters hold a function");
  });
  test("a callback sees every part", () => {
    const events: mx.ExportEvent[] = [];
    mx.exportFunction((e) => void events.push(e), (a: A, { b }: { b: A }) => mx.abs(mx.subtract(a, b)).astype(mx.int32), mx.array(1), { b: mx.array(1) });
    expect(events.map((e) => (e.type === "primitive" ? e.name : e.type))).toEqual(["inputs", "keyword_inputs", "outputs", "constants", "Subtract", "Abs", "AsType"]);
    expect(events[1]).toEqual({ type: "keyword_inputs", keywords: [["b", "A1"]] });
    expect(events[6]).toMatchObject({ inputs: ["A3"], arguments: [mx.int32] });
  });
  test.each([["log2", 0], ["log10", 1], ["log", 2]] as const)("a callback sees the base of %s as a number", (name, base) => {
    const seen: unknown[] = [];
    mx.exportFunction((e) => void (e.type === "primitive" && seen.push(e.arguments)), (a: A) => mx[name](a), mx.array(1));
    expect(seen).toEqual([[base]]);
  });
});

describe("other shapes", () => {
  const check = (f: (x: A) => A, sample: number[], others: number[][]): void => {
    mx.exportFunction(path, f, mx.zeros(sample), null, true);
    const g = mx.importFunction(path);
    for (const shape of [sample, ...others]) {
      const x = mx.random.normal(shape);
      const want = f(x);
      expect(g(x)[0]?.shape).toEqual(want.shape);
      expect(mx.allclose(g(x)[0] as A, want, 1e-5, 1e-5).item()).toBe(true);
    }
  };
  const weights = mx.random.normal([32, 8]);
  test("matmul with a constant", () => check((x) => mx.matmul(x, weights), [2, 10, 32], [[2, 50, 32], [3, 1, 32]]));
  test("convolution with groups", () => {
    const w = mx.random.normal([6, 3, 3, 2]);
    check((x) => mx.conv2d(x, w, 2, 1, 1, 2), [2, 32, 32, 4], [[1, 32, 32, 4], [3, 15, 20, 4]]);
  });
  test("joined and parted dimensions", () => check((x) => mx.transpose(mx.unflatten(mx.flatten(x, 0, 1), -1, [2, -1]), [1, 0, 2]), [2, 3, 4], [[5, 1, 4], [2, 3, 8]]));
  test("several numbers of arguments; other ranks do not fit", () => {
    const e = mx.exporter(path, (...args: A[]) => args.reduce((a, b) => mx.add(a, b)), true);
    for (let n = 1; n <= 3; n++) e(...new Array<A>(n).fill(mx.array(1)));
    e.close();
    const g = mx.importFunction(path);
    expect([g(mx.array(1))[0]?.item(), g(mx.array(1), mx.array(2))[0]?.item()]).toEqual([1, 3]);
    expect(() => g(mx.array(10), mx.array([5, 10]))).toThrow("not exported for these arguments");
  });
  test("sizes that were recorded are an error", () => {
    mx.exportFunction(path, (x: A) => mx.reshape(x, [6, -1]), mx.zeros([2, 3, 4]), null, true);
    expect(mx.importFunction(path)(mx.zeros([3, 4, 1]))[0]?.shape).toEqual([6, 2]);
    expect(() => mx.importFunction(path)(mx.zeros([5, 5, 5]))).toThrow("[importFunction] reshape was recorded for shapes (2,3,4)");
  });
});

describe("damaged and hostile files", () => {
  mx.exportFunction(path, (x: A) => mx.sum(mx.transpose(mx.reshape(mx.matmul(x, mx.eye(4)), [2, 4])).index(mx.Slice(1, 3)), 0), mx.zeros([2, 4]));
  const good = readFileSync(path);
  interface Program {
    shapeless: boolean;
    traces: { positional: number; keywords: unknown[]; inputs: unknown[]; constants: unknown[]; steps: [string, Record<string, unknown>, number[], unknown[]][]; outputs: unknown[] }[];
  }
  /** The good file with other metadata. */
  function changed(change: (program: Program, metadata: Record<string, string>) => void): Uint8Array {
    const n = Number(good.readBigUInt64LE(0));
    const header = JSON.parse(good.subarray(8, 8 + n).toString());
    const program = JSON.parse(header.__metadata__.program);
    change(program, header.__metadata__);
    if (header.__metadata__.program !== "broken") header.__metadata__.program = JSON.stringify(program);
    const json = Buffer.from(JSON.stringify(header));
    const head = Buffer.alloc(8);
    head.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([head, json, good.subarray(8 + n)]);
  }
  const trace = (p: Program) => p.traces[0] as Program["traces"][0];
  const step = (p: Program, name: string) => trace(p).steps.find((s) => s[0] === name) as Program["traces"][0]["steps"][0];
  test("unchanged it works", () => {
    expect(mx.importFunction(changed(() => {}))(mx.ones([2, 4]))[0]?.tolist()).toEqual([2, 2]);
  });
  test("cut at any place", () => {
    for (let n = 0; n < good.length; n += 7) expect(() => mx.importFunction(good.subarray(0, n))).toThrow(/^\[(load|importFunction)\]/);
    expect(() => mx.importFunction(join(folder, "none"))).toThrow();
    writeFileSync(join(folder, "text"), "hello");
    expect(() => mx.importFunction(join(folder, "text"))).toThrow("[load]");
  });
  const cases: [string, (p: Program, metadata: Record<string, string>) => void, string | RegExp][] = [
    ["format", (_p, m) => void (m["format"] = "pt"), "not an exported function"],
    ["version", (_p, m) => void (m["version"] = "2"), 'version "2" is not supported'],
    ["no JSON", (_p, m) => void (m["program"] = "broken"), "the program is no JSON"],
    ["no traces", (p) => void (p.traces = 3 as never), "traces must be a list"],
    ["an unknown op", (p) => void (step(p, "matmul")[0] = "constructor"), 'there is no op "constructor"'],
    ["an op of the library itself", (p) => void (step(p, "matmul")[0] = "placeholder"), "there is no op"],
    ["a value from later", (p) => void (step(p, "matmul")[2] = [0, 99]), "matmul reads value 99"],
    ["a value that is no number", (p) => void (step(p, "matmul")[2] = ["0" as never, 1]), 'matmul reads value "0"'],
    ["too few operands", (p) => void (step(p, "matmul")[2] = [0]), "the parameters of matmul are wrong"],
    ["another result", (p) => void (step(p, "sum")[3] = [["float32", [5]]]), "sum gives float32(2), the file says float32(5)"],
    ["a dtype that does not exist", (p) => void (trace(p).inputs[0] = ["float8", [2, 4]]), 'there is no dtype "float8"'],
    ["operands of other types", (p) => void (trace(p).inputs[0] = ["float16", [2, 4]]), "the parameters of matmul are wrong: its operands have different types"],
    ["a slice outside of its array", (p) => void (step(p, "slice")[1]["start"] = [3, 0]), "the parameters of slice are wrong"],
    ["a slice of fractions", (p) => void (step(p, "slice")[1]["step"] = [0.5, 1]), "the parameters of slice are wrong"],
    ["axes that are no order", (p) => void (step(p, "transpose")[1]["axes"] = [0, 0]), "the parameters of transpose are wrong"],
    ["an axis that does not exist", (p) => void (step(p, "sum")[1]["axes"] = [7]), "axes 7 is out of range"],
    ["a constant that is not there", (p) => void (trace(p).constants = ["__proto__"]), 'there is no constant "__proto__"'],
    ["an output that is not there", (p) => void (trace(p).outputs = [-1]), "output -1 is no value"],
    ["arguments that do not fit", (p) => void (trace(p).positional = 5), "the arguments do not fit the inputs"],
    ["nested too deep", (p) => {
      let deep: unknown = 1;
      for (let i = 0; i < 100; i++) deep = [deep];
      step(p, "sum")[1]["axes"] = deep;
    }, "nested too deep"],
  ];
  test.each(cases)("%s", (_name, change, message) => {
    const handles = mx.getWrappersCount();
    expect(() => mx.importFunction(changed(change))).toThrow(message);
    // The constants that were loaded are given back.
    expect(mx.getWrappersCount()).toBeLessThanOrEqual(handles);
  });
  test("a shapeless file checks the shapes that it is called with", () => {
    mx.exportFunction(path, (x: A, i: A) => mx.takeAlongAxis(x, i, 0), [mx.zeros([3, 4]), mx.zeros([2, 4], mx.int32)], undefined, true);
    const f = mx.importFunction(path);
    expect(f(mx.ones([5, 2]), mx.zeros([1, 2], mx.int32))[0]?.tolist()).toEqual([[1, 1]]);
    for (const wrong of [[2, 9], [1, 1]]) expect(() => f(mx.ones([5, 2]), mx.zeros(wrong, mx.int32))).toThrow("[importFunction] takeAlongAxis can not be done for (5,2)");
    expect(() => f(mx.ones([0, 2]), mx.zeros([1, 2], mx.int32))).toThrow("[importFunction] takeAlongAxis");
  });
  test("views that reach out of their storage", () => {
    mx.exportFunction(path, (x: A) => mx.asStrided(x, [2, 2], [2, 1], 1), mx.zeros([6]));
    const text = readFileSync(path).toString("latin1");
    const evil = Buffer.from(text.replace('\\"offset\\":1', '\\"offset\\":9'), "latin1");
    expect(evil.length).toBe(text.length);
    expect(evil.toString("latin1")).not.toBe(text);
    expect(() => mx.importFunction(evil)).toThrow("the parameters of asStrided are wrong");
  });
});

describe("exportToDot", () => {
  const text = (...arrays: Parameters<typeof mx.exportToDot> extends [unknown, ...infer R] ? R : never): string => {
    let out = "";
    mx.exportToDot({ write: (s) => (out += s) }, ...arrays);
    return out;
  };
  test("arrays, ops, names", () => {
    expect(text(mx.array(1)).startsWith("digraph {")).toBe(true);
    const [a, b] = [mx.array(1), mx.array(2)];
    const sum = text({ a, b, total: mx.add(a, b) });
    for (const part of ['label="add"', '"a" -> op0', '"b" -> op0', 'op0 -> "total"']) expect(sum).toContain(part);
    expect(text(...mx.divmod(a, b)).match(/label=/g)?.length).toBeGreaterThan(1);
    expect(() => text(3 as never)).toThrow("[exportToDot]");
  });
  test("a compiled function has fewer ops", () => {
    mx.enableCompile();
    const f = (x: A): A => mx.add(mx.add(x, 1), mx.add(x, 1));
    const count = (x: A): number => text(x).match(/label=/g)?.length ?? 0;
    const x = mx.array(1);
    // A call is one node, whatever it computes.
    expect([count(f(x)), count(mx.compile(f)(x))]).toEqual([3, 1]);
  });
});
