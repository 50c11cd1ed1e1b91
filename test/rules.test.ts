/**
 * The rules of every op in the registry: each is there or says why not, each is exercised, and vmap equals a loop for the samples of every public function.
 */
import { describe, expect, test } from "vitest";
import { MxArray } from "../src/core/array.ts";
import { ops } from "../src/core/op.ts";
import { isMissing } from "../src/core/rules.ts";
import { valuesOf } from "../src/debug/oracle.ts";
import { core as mx } from "../src/index.ts";
import { evalArrays } from "../src/schedule/run.ts";
import { everySample } from "./helpers/all-samples.ts";
import { type Sample, Tensor, build, tensor, tolerances } from "./helpers/check.ts";
import { allCases, arrayFrom, listOf as casesListOf, numbers } from "./helpers/transform-cases.ts";

const batch = 3;

/** Names of the ops in the graphs of arrays that are not evaluated yet. */
function opsOf(arrays: readonly MxArray[], found: Set<string>): void {
  const stack = arrays.map((a) => a.desc);
  const met = new Set(stack);
  for (let d = stack.pop(); d; d = stack.pop()) {
    if (!d.node) continue;
    found.add(d.node.op.name);
    for (const i of d.node.inputs) {
      if (!met.has(i)) stack.push(i);
      met.add(i);
    }
  }
}

/** Element n of the batch for an array argument: other random numbers, or the given ones in another order. */
function element(arg: Tensor | MxArray, n: number): MxArray {
  if (arg instanceof MxArray) return n === 0 ? arg : mx.reshape(mx.roll(mx.reshape(arg, [-1]), n), arg.shape);
  const { seed = 1, values } = arg.options;
  const turned = values && [...values.slice(n % values.length), ...values.slice(0, n % values.length)];
  return build(tensor(arg.shape, { ...arg.options, layout: "row", seed: seed + 10 * n, ...(turned ? { values: turned } : {}) }));
}
const isArray = (x: unknown): x is Tensor | MxArray => x instanceof Tensor || x instanceof MxArray;
const sizeOf = (x: Tensor | MxArray): number => (x instanceof MxArray ? x.size : x.shape.reduce((n, d) => n * d, 1));
/** Places of the array arguments; those inside of lists count one by one. */
const placesOf = (args: readonly unknown[]): (readonly number[])[] =>
  args.flatMap((a, i) => (isArray(a) ? [[i]] : Array.isArray(a) ? a.flatMap((b, k) => (isArray(b) ? [[i, k]] : [])) : []));
const at = (args: readonly unknown[], [i, k]: readonly number[]): Tensor | MxArray => (k === undefined ? args[i as number] : (args[i as number] as unknown[])[k]) as Tensor;
function replaced(args: readonly unknown[], places: readonly (readonly number[])[], arrays: readonly MxArray[]): unknown[] {
  const out = args.map((a) => (Array.isArray(a) ? [...a] : a));
  places.forEach(([i, k], n) => {
    if (k === undefined) out[i as number] = arrays[n];
    else (out[i as number] as unknown[])[k] = arrays[n];
  });
  return out;
}
const listOf = (x: unknown): MxArray[] => (Array.isArray(x) ? x.filter((y): y is MxArray => y instanceof MxArray) : [x as MxArray]);

/** Compares vmap with a loop; the axes of the batch are the last ones of the arguments, so that they have to be moved. */
function checkVmap(f: (...args: unknown[]) => unknown, sample: Sample, places: readonly (readonly number[])[], batched: readonly boolean[], seen: Set<string>): void {
  const elements = places.map((p) => Array.from({ length: batch }, (_, n) => element(at(sample.args, p), n)));
  const call = (arrays: MxArray[]): MxArray[] => {
    const results = listOf(f(...replaced(sample.args, places, arrays)));
    opsOf(results, seen);
    return results;
  };
  const want = Array.from({ length: batch }, (_, n) => call(elements.map((e, i) => (batched[i] ? e[n] : e[0]) as MxArray)));
  const inputs = elements.map((e, i) => (batched[i] ? mx.stack(e, -1) : (e[0] as MxArray)));
  const got = mx.vmap((...xs: MxArray[]) => call(xs), inputs.map((x, i) => (batched[i] ? x.ndim - 1 : null)))(...inputs) as MxArray[];
  evalArrays(got, want);
  got.forEach((g, k) => {
    const all = want.flatMap((w) => [...valuesOf((w[k] as MxArray).desc)]);
    expect(g.shape).toEqual([batch, ...(want[0]?.[k] as MxArray).shape]);
    const { rtol, atol } = { ...(tolerances[g.dtype.name] ?? { rtol: 0, atol: 0 }), ...sample.tolerance };
    // Kernels on matrix units round terms of a sum to 16 bits, so what is left of terms that cancel has an error of the terms' size.
    const terms = g.dtype.size === 2 ? all.reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 0) : 0;
    valuesOf(g.desc).forEach((v, i) => {
      const w = all[i] as number;
      if (Object.is(v, w) || v === w || (Number.isNaN(v) && Number.isNaN(w))) return;
      // Kernels may take another path for another shape, so both sides err.
      if (!(Math.abs(v - w) <= 2 * (atol + rtol * Math.max(terms, Math.abs(w))))) throw new Error(`output ${k} [${i}]: got ${v}, want ${w}`);
    });
  });
}

/** Ops that calls with batched arguments have used; filled by the tests, in their order. */
const batchedOps = new Set<string>();
/** Arguments that can not be batched, by function and place. */
const fixed: Readonly<Record<string, readonly number[]>> = { pad: [2], qqmm: [6, 7] };

describe("vmap of the samples", () => {
  for (const { name, f, samples } of everySample) {
    const small = samples.filter((s) => placesOf(s.args).length > 0 && placesOf(s.args).every((p) => sizeOf(at(s.args, p)) <= 3000));
    const some = small.filter((_, i) => i % Math.ceil(small.length / 12) === 0);
    if (some.length === 0) continue;
    test(name, () => {
      for (const sample of some) {
        const places = placesOf(sample.args);
        const free = places.map(([i]) => !fixed[name]?.includes(i as number));
        const single = places.map((_, i) => places.map((_p, k) => k === i)).filter((_, i) => free[i]);
        for (const batched of places.length === 1 ? single : [...single, free]) {
          try {
            checkVmap(f, sample, places, batched, batchedOps);
          } catch (e) {
            throw new Error(`${name}(${sample.args.map(String).join("; ")}) batched ${batched}: ${(e as Error).message}`);
          }
        }
      }
    });
  }
  test("a constant of pad that differs is refused", () => {
    expect(() => mx.vmap((x: MxArray, v: MxArray) => mx.pad(x, 1, v))(mx.zeros([2, 3]), mx.array([1, 2]))).toThrow("[pad] the constant can not be batched");
  });
});

/** Ops in the functions of the cases, which grad.test.ts differentiates and vmap.test.ts batches. */
const caseOps = new Set<string>();
for (const [, cases] of allCases) {
  for (const c of cases) {
    const inputs = c.shapes.map((shape, i) => arrayFrom(numbers(i + 1, shape.reduce((n, d) => n * d, 1), c.range), shape, c.single ? mx.float32 : mx.float64));
    opsOf(casesListOf(c.f(...inputs)), caseOps);
  }
}
const stated = (rule: unknown): boolean => rule !== undefined && !(isMissing(rule) && rule.none.trim() === "");

describe("registry", () => {
  const all = [...ops.values()];
  test("every op states its rules", () => {
    for (const op of all) for (const kind of ["vjp", "jvp", "vmap"] as const) expect(stated(op[kind]), `${kind} of ${op.name}`).toBe(true);
    for (const op of all) if (op.vjp === "composite" || op.jvp === "composite" || op.vmap === "composite") expect(op.composite, op.name).toBeDefined();
  });
  test("every derivative is checked by a case", () => {
    // The derivative of a product of rounded operands is by definition that of the product without rounding: quantized-modes.test.ts.
    const byDefinition = new Set(["qqmm"]);
    const differentiable = all.filter((op) => op.vjp !== "zero" && !isMissing(op.vjp) && !byDefinition.has(op.name));
    expect(differentiable.map((op) => op.name).filter((name) => !caseOps.has(name))).toEqual([]);
  });
  test("every batching rule is checked by a case or a sample", () => {
    const batching = all.filter((op) => !isMissing(op.vmap));
    expect(batching.map((op) => op.name).filter((name) => !caseOps.has(name) && !batchedOps.has(name))).toEqual([]);
  });
  test("an op without a rule says why", () => {
    const told = new Set<string>();
    for (const { f, samples } of everySample) {
      for (const { args } of samples) {
        const places = placesOf(args).filter((p) => sizeOf(at(args, p)) <= 3000);
        if (places.length === 0 || places.length < placesOf(args).length) continue;
        const inputs = places.map((p) => element(at(args, p), 0));
        const call = (...xs: MxArray[]): MxArray[] => listOf(f(...replaced(args, places, xs)));
        const [first] = call(...inputs);
        const op = first?.desc.node?.op;
        if (!op || told.has(op.name) || !isMissing(op.vjp) || !inputs[0]?.dtype.isFloat || !first?.dtype.isInexact) continue;
        told.add(op.name);
        const reason = (op.vjp as { none: string }).none;
        expect(() => mx.grad((x: MxArray) => mx.sum(mx.real(call(x, ...inputs.slice(1))[0] as MxArray)))(inputs[0] as MxArray)).toThrow(`[${op.name}] has no gradient (${reason})`);
      }
    }
    expect([...told]).toEqual(expect.arrayContaining(["solve", "cholesky", "qr", "svd", "eigh", "eig"]));
  });
});
