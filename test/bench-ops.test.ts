/** bench/ops: its float64 checks accept what our library computes and refuse what is slightly wrong. */
import { describe, expect, test } from "vitest";
import { cases, learningRate, type OpCase } from "../bench/ops/cases.ts";
import { mlxEngine } from "../bench/ops/mlx.ts";
import * as library from "../src/index.ts";

const engine = mlxEngine(library, learningRate, true);
const row = (name: string): OpCase => cases.find((c) => c.name === name) as OpCase;

/** Each row with a change of its results that is small but must be seen. */
const wrong: Record<string, (outputs: Float32Array[]) => Float32Array[]> = {
  softmax: (o) => o.map((x) => x.map((v) => v * 1.01)),
  "sum axis 1": (o) => o.map((x) => x.map((v) => v + 1e-3)),
  "sort rows": ([x]) => [(x as Float32Array).map((v, i) => (i === 5000 ? v + 1e-6 : v))],
  "gather elements": ([x]) => [(x as Float32Array).map((_, i, all) => all[i ^ 1] as number)],
  // The second output is the first parameter: its gradient a tenth too long.
  "training step, 2-layer MLP": ([loss, w, ...rest]) => {
    const before = row("training step, 2-layer MLP").inputs()[2]?.data as Float32Array;
    return [loss as Float32Array, (w as Float32Array).map((v, i) => v + 0.1 * (v - (before[i] as number))), ...rest];
  },
};

describe("checks", () => {
  test.each(Object.keys(wrong))("%s", async (name) => {
    const c = row(name);
    const inputs = c.inputs();
    const arrays = await engine.put(name, inputs);
    const outputs = (engine.rows[name] as (a: typeof arrays) => typeof arrays)(arrays);
    const numbers = await engine.read(name, outputs);
    engine.dispose([...arrays, ...outputs]);
    expect(() => c.check(inputs, numbers)).not.toThrow();
    expect(() => c.check(inputs, (wrong[name] as (o: Float32Array[]) => Float32Array[])(numbers))).toThrow(/expected/);
  });
  test("every row is written for MLX's functions", () => {
    expect(Object.keys(engine.rows).sort()).toEqual(cases.map((c) => c.name).sort());
  });
});
