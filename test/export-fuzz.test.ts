/**
 * Files of functions that were changed by chance: whatever a file holds, loading and running it gives a result or an error that says what is wrong, and touches no
 * memory but its own. Shapes of results are made to fit what was changed, as someone would who means harm.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { wasmBackend } from "../src/backend/wasm/index.ts";
import type { Aval, MxArray } from "../src/core/array.ts";
import { type Dtype, dtypes } from "../src/core/dtype.ts";
import { ops } from "../src/core/op.ts";
import { sizeOf } from "../src/core/shape.ts";
import * as mx from "../src/mx.ts";
import { isStorable } from "../src/transforms/function-checks.ts";
import { type Sampled, everySample } from "./helpers/all-samples.ts";
import { Tensor, build, randomSource, tensor } from "./helpers/check.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type StepJson = [string, Record<string, Json>, number[], [string, number[]][]];
interface TraceJson {
  inputs: [string, number[]][];
  constants: number[];
  steps: StepJson[];
  outputs: number[];
}
interface Exported {
  readonly name: string;
  readonly file: Buffer;
  readonly inputs: readonly MxArray[];
  readonly ops: ReadonlySet<string>;
}

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The header of a file taken apart. */
function opened(file: Buffer): { header: Record<string, never> & { __metadata__: { program: string } }; program: { traces: [TraceJson] }; rest: Buffer } {
  const n = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + n).toString());
  return { header, program: JSON.parse(header.__metadata__.program), rest: file.subarray(8 + n) };
}
function closed({ header, program, rest }: ReturnType<typeof opened>): Buffer {
  header.__metadata__.program = JSON.stringify(program);
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([head, json, rest]);
}

type A = mx.MxArray;
const of = (name: string, args: readonly unknown[], f: (...xs: A[]) => unknown): Sampled => ({ name, f: f as Sampled["f"], samples: [{ args }] as never });
const int32 = { dtype: mx.int32, low: 0, high: 3 };
/** Ops that no sample has. */
const more: readonly Sampled[] = [
  of("scatter", [tensor([5, 4]), tensor([3], int32), tensor([3, 4])], (x, i, u) => (x as unknown as { at: (i: A) => { add: (u: A) => A } }).at(i).add(u)),
  of("scatter of a column", [tensor([5, 4]), tensor([2], int32)], (x, i) => mx.vmap((row: A) => (row as unknown as { at: (i: A) => { multiply: (u: number) => A } }).at(i).multiply(2))(x)),
  of("mask", [tensor([3, 4]), tensor([3], { dtype: mx.bool, low: 0, high: 1 }), tensor([4])], (x, m, v) => {
    const y = mx.add(x, 0);
    y.indexPut_(m, v);
    return y;
  }),
  of("depends", [tensor([3]), tensor([2])], (x, y) => mx.depends([x], [y])),
  of("searchsorted", [tensor([9]), tensor([4])], (x, v) => mx.searchsorted(mx.sort(x), v)),
  of("gradient of attention", [tensor([1, 4, 5, 8]), tensor([1, 2, 6, 8]), tensor([1, 2, 6, 8])], (q, k, v) => mx.grad((x: A) => mx.sum(mx.fast.scaledDotProductAttention(x, k, v, 0.3)))(q)),
];

/** Files of samples, so that each op is in a few of them. */
function exportedSamples(): Exported[] {
  const found: Exported[] = [];
  const seen = new Map<string, number>();
  for (const { name, f, samples } of [...more, ...everySample]) {
    // From all over the list.
    const every = Math.max(1, Math.floor(samples.length / 10));
    for (const sample of samples.filter((_, i) => i % every === 0)) {
      const inputs: MxArray[] = [];
      const filled = (v: unknown, from: readonly MxArray[] | undefined, next: { at: number }): unknown => {
        if (v instanceof Tensor) return from ? from[next.at++] : inputs[inputs.push(build(v)) - 1];
        return Array.isArray(v) ? v.map((x) => filled(x, from, next)) : v;
      };
      try {
        filled(sample.args, undefined, { at: 0 });
        if (inputs.some((x) => x.size > 5000)) continue;
        const path = join(folder, "sample");
        mx.exportFunction(path, (...xs: MxArray[]) => f(...(filled(sample.args, xs, { at: 0 }) as unknown[])) as MxArray, inputs);
        const file = readFileSync(path);
        const names = new Set(opened(file).program.traces[0].steps.map((s) => s[0]));
        if (![...names].some((n) => (seen.get(n) ?? 0) < (ops.get(n)?.expr ? 1 : 3))) continue;
        for (const n of names) seen.set(n, (seen.get(n) ?? 0) + 1);
        found.push({ name, file, inputs, ops: names });
      } catch (error) {
        // Results that are no arrays, and errors that the sample is about.
        if (!(error as Error).message.startsWith("[")) throw error;
      }
    }
  }
  return found;
}

const decoded = (v: Json): unknown => {
  if (Array.isArray(v)) return v.map(decoded);
  if (typeof v !== "object" || v === null) return v;
  if (typeof v["$dtype"] === "string") return dtypes.find((d) => d.name === v["$dtype"]);
  if (typeof v["$number"] === "string") return Number(v["$number"]);
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, decoded(x)]));
};

/** Changes one thing, then the shapes of all results to what follows from it. */
function changed(file: Buffer, random: () => number): { bytes: Buffer; inputs: [string, number[]][] } {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const parts = opened(file);
  const trace = parts.program.traces[0];
  const other = (v: Json): Json => {
    if (typeof v === "number") return pick<Json>([0, 1, -1, v + 1, v - 1, 2 * v, -v, 7, 64, 0.5, 2 ** 31, -(2 ** 31), 2 ** 53, { $number: "NaN" }, { $number: "Infinity" }, "1", null, true]);
    if (typeof v === "boolean") return pick<Json>([!v, !v, 0, null]);
    if (typeof v === "string") return pick<Json>(["causal", "array", "none", "add", "mxfp4", "nvfp4", "general", "complex", "hermitian", "", 3]);
    if (Array.isArray(v)) return pick<Json>([[], [...v, 1], v.slice(1), [...v].reverse(), [...v, ...v], null, v.map(() => 0)]);
    return pick<Json>([null, 1, { $dtype: pick(dtypes).name }]);
  };
  /** Changes a leaf of a value, or the value. */
  const deep = (v: Json): Json => {
    const whole = typeof v !== "object" || v === null || "$dtype" in v || random() < 0.2;
    const keys = whole ? [] : Object.keys(v as object);
    if (keys.length === 0) return other(v);
    const key = pick(keys);
    const copy = structuredClone(v) as Record<string, Json>;
    copy[key] = deep(copy[key] as Json);
    return copy as Json;
  };
  const step = pick(trace.steps);
  const keys = Object.keys(step?.[1] ?? {});
  const what = random();
  if (step && keys.length > 0 && what < 0.6) {
    const key = pick(keys);
    if (random() < 0.1) delete step[1][key];
    else step[1][key] = deep(step[1][key] as Json);
  } else if (step && what < 0.75) step[2] = deep(step[2]) as number[];
  else if (trace.inputs.length > 0) {
    const input = pick(trace.inputs);
    if (random() < 0.5) input[0] = pick(dtypes).name;
    else input[1] = random() < 0.5 ? input[1].map((n) => (random() < 0.5 ? n : pick([0, 1, 2, 3, 2 * n]))) : (other(input[1]) as number[]);
  }
  inferAgain(trace, parts.header as never);
  return { bytes: closed(parts), inputs: trace.inputs };
}
function inferAgain(trace: TraceJson, header: Record<string, { dtype: string; shape: number[] }>): void {
  const types: Record<string, string> = { F32: "float32", I32: "int32", U32: "uint32", BOOL: "bool", F16: "float16", BF16: "bfloat16", F64: "float64", C64: "complex64", U8: "uint8", I8: "int8", U16: "uint16", I16: "int16", U64: "uint64", I64: "int64" };
  const aval = ([name, shape]: [string, number[]]): Aval => ({ dtype: dtypes.find((d) => d.name === name) as Dtype, shape });
  try {
    const avals = [...trace.inputs, ...trace.constants.map((n): [string, number[]] => [types[header[n]?.dtype as string] as string, header[n]?.shape as number[]])].map(aval);
    for (const step of trace.steps) {
      const outputs = ops.get(step[0])?.infer(step[2].map((i) => avals[i] as Aval), decoded(step[1]) as object) as Aval[];
      step[3] = outputs.map((o) => [o.dtype.name, [...o.shape]]);
      avals.push(...outputs);
    }
  } catch {
    // What can not be inferred is for the import to refuse.
  }
}

/** "refused", "failed" (an error when it ran) or "ran"; throws when the error is none of the library's. */
function attempt(bytes: Buffer, avals: readonly [string, number[]][]): string {
  let stage = "refused";
  try {
    const f = mx.importFunction(bytes);
    stage = "failed";
    const inputs = avals.map(([name, shape]) => mx.astype(mx.remainder(mx.arange(sizeOf(shape)), 5), dtypes.find((d) => d.name === name) as Dtype).reshape(shape));
    const outputs = f(inputs as never);
    if (outputs.reduce((n, o) => n + o.size, 0) > 1e6) return "ran";
    mx.eval(outputs);
    return "ran";
  } catch (error) {
    if (!/^\[\w/.test((error as Error).message)) throw error;
    return stage;
  }
}

test("every op has a check, or stands in no file", () => {
  const refused = [...ops.values()].filter((op) => !isStorable(op)).map((op) => op.name);
  expect(refused.sort()).toEqual(["advance", "attentionStep", "chooseToken", "combineProjectAdd", "compiled", "copy", "custom", "embedRow", "normGateUp", "normProject", "placeholder", "projectAdd", "tracer"].sort());
});

test("changed files of every op", { timeout: 300_000 }, () => {
  const random = randomSource(Number(process.env["FUZZ_SEED"] ?? 1));
  const rounds = Number(process.env["FUZZ_ROUNDS"] ?? 2);
  const check = wasmBackend().memory.guardBlocks();
  const files = exportedSamples();
  const counts: Record<string, number> = {};
  const bad: string[] = [];
  for (const { name, file, inputs } of files) {
    expect(attempt(file, inputs.map((x) => [x.dtype.name, x.shape])), name).toBe("ran");
    for (let i = 0; i < rounds; i++) {
      const { bytes, inputs: avals } = changed(file, random);
      try {
        const end = mx.tidy(() => attempt(bytes, avals));
        counts[end] = (counts[end] ?? 0) + 1;
        mx.synchronize();
        check();
      } catch (error) {
        bad.push(`${name}: ${(error as Error).message}\n   ${JSON.stringify(opened(bytes).program).slice(0, 600)}`);
      }
    }
  }
  if (process.env["FUZZ_ROUNDS"]) console.log(files.length, counts);
  if (bad.length > 0) throw new Error(`${bad.length} bad ends:\n${bad.slice(0, 40).join("\n")}`);
  const covered = new Set(files.flatMap((f) => [...f.ops]));
  expect([...ops.values()].filter((op) => isStorable(op) && !op.expr && !covered.has(op.name)).map((op) => op.name).sort()).toEqual([]);
  expect(counts["ran"]).toBeGreaterThan(20);
  expect(counts["refused"]).toBeGreaterThan(100);
});
