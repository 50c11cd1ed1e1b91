/**
 * node --import tsx bench/row-groups.ts [--samples 9] [--shapes 1024x65,64x4096] [filter ...]: what row groups save. Programs around reductions of rows, as row groups and with
 * MLX_DISABLE=wasm/generated-rows,vulkan/generated-rows, recorded once and run again in turns, so that kernels alone count. Results are compared first. DEVICE=gpu measures the GPU.
 */
import { parseArgs } from "node:util";
import { core as mx, nn, type MxArray } from "../src/index.ts";
import { Recording } from "../src/schedule/replay.ts";
import { stats } from "../src/schedule/run.ts";
import { digits, duration, measureTogether, ratios, spread, summarize } from "./harness.ts";

const { values: options, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: { samples: { type: "string", default: "9" }, shapes: { type: "string", default: "16384x8,8192x17,4096x32,1024x65,1024x128,256x1024,64x4096,4x32768" } },
});

interface Data {
  readonly x: MxArray;
  readonly y: MxArray;
  readonly w: MxArray;
  readonly b: MxArray;
}
const programs: Readonly<Record<string, (d: Data) => MxArray>> = {
  "softmax(x s + y)": ({ x, y }) => mx.softmax(mx.add(mx.multiply(x, 0.125), y), -1),
  "softmax(x) y": ({ x, y }) => mx.multiply(mx.softmax(x, -1), y),
  "layerNorm(x + y)": ({ x, y, w, b }) => mx.fast.layerNorm(mx.add(x, y), w, b, 1e-5),
  "gelu(rmsNorm(x))": ({ x, w }) => nn.gelu(mx.fast.rmsNorm(x, w, 1e-5)),
  "rmsNorm(x + y), and the sum": ({ x, y, w }) => {
    const sum = mx.add(x, y);
    return mx.concatenate([mx.fast.rmsNorm(sum, w, 1e-5), sum], 0);
  },
  "rmsNorm(x) y": ({ x, y, w }) => mx.multiply(mx.fast.rmsNorm(x, w, 1e-5), y),
  "cross entropy of 30 tanh(x / 30)": ({ x }) => nn.losses.crossEntropy(mx.multiply(mx.tanh(mx.multiply(x, 1 / 30)), 30), mx.zeros([x.shape[0] as number], mx.int32)),
  "argmax(x s)": ({ x }) => mx.argmax(mx.multiply(x, -1), -1),
  "sum(x y)": ({ x, y }) => mx.sum(mx.multiply(x, y), -1),
  "x - max(x)": ({ x }) => mx.subtract(x, mx.max(x, -1, true)),
  "softmax in plain ops": ({ x }) => {
    const e = mx.exp(mx.subtract(x, mx.max(x, -1, true)));
    return mx.divide(e, mx.sum(e, -1, true));
  },
  "norm of x - y, all elements": ({ x, y }) => mx.sqrt(mx.sum(mx.square(mx.subtract(x, y)))),
};
const off = "wasm/generated-rows,vulkan/generated-rows";
function recorded(program: (d: Data) => MxArray, data: Data, disable: string): { recording: Recording; result: MxArray; groups: number } {
  process.env["MLX_DISABLE"] = disable;
  const before = stats.rowGroups;
  const result = mx.tidy(() => program(data));
  const recording = Recording.evaluate(result);
  delete process.env["MLX_DISABLE"];
  if (recording.refused !== undefined) throw new Error(`not recorded: ${recording.refused}`);
  return { recording, result, groups: stats.rowGroups - before };
}
const farthest = (a: MxArray, b: MxArray): number => mx.tidy(() => mx.max(mx.abs(mx.subtract(a.astype(mx.float32), b.astype(mx.float32)))).item() as number);

if (process.env["DEVICE"] === "gpu") mx.setDefaultDevice("gpu");
console.log("time as groups | without | groups / without, median (10th-90th percentile); below 1 the group is faster");
for (const text of options.shapes.split(",")) {
  const shape = text.split("x").map(Number);
  const data: Data = { x: mx.random.normal(shape), y: mx.random.normal(shape), w: mx.random.normal(shape.slice(-1)), b: mx.random.normal(shape.slice(-1)) };
  mx.eval(Object.values(data));
  for (const [name, program] of Object.entries(programs)) {
    if (filters.length > 0 && !filters.some((f) => name.includes(f))) continue;
    const group = recorded(program, data, "");
    const plain = recorded(program, data, off);
    const error = farthest(group.result, plain.result);
    const largest = mx.tidy(() => mx.max(mx.abs(plain.result)).item() as number);
    if (!(error <= 1e-5 * Math.max(1, largest))) throw new Error(`${name} ${text}: results differ by ${error}`);
    const times = measureTogether({ group: () => group.recording.run(), plain: () => plain.recording.run() }, { samples: Number(options.samples), sampleMs: 8, warmupMs: 15 });
    const [g, p] = [summarize(times.group), summarize(times.plain)];
    console.log(`${text.padEnd(10)} ${name.padEnd(28)} ${duration(g.median).padStart(9)} ${duration(p.median).padStart(9)}  ${spread(ratios(times.group, times.plain))}${group.groups === 0 ? "  no group" : ""} ${digits(g.median / shape.reduce((a, b) => a * b, 1) * 1e9)} ns/element`);
    for (const r of [group, plain]) {
      r.recording.dispose();
      r.result.dispose();
    }
  }
}
