/** The side-by-side benchmark's own parts: tables, chart, merging of parts, ONNX files, and the float64 reference. Speed itself is not tested. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { compareRounds } from "../bench/compare-commits.ts";
import { type Machine, type Result, type Summary, summarize } from "../bench/harness.ts";
import { configs, matrices } from "../bench/models/configs.ts";
import { openModel } from "../bench/models/decode.ts";
import { commandsOf, timeLists } from "../bench/models/lists.ts";
import { syntheticCheckpoint } from "../bench/models/synthetic.ts";
import { ggufWeights } from "../bench/peers/gguf.ts";
import { fileOf, version } from "../bench/peers/installed.ts";
import { checkPrompts, checkTokens } from "../bench/peers/measure.ts";
import { WeightFile, encodeOnnx } from "../bench/peers/onnx.ts";
import { onnxWeights, qwen3Graph, syntheticOnnx } from "../bench/peers/onnx-qwen3.ts";
import { checkpointWeights, referenceLogits } from "../bench/peers/reference.ts";
import { type LlmRow, type PeerResult, markdown, merge, svg } from "../bench/peers/report.ts";

import { wasmBackend } from "../src/backend/wasm/index.ts";
import { core as mx } from "../src/index.ts";

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-bench-peers-test-"));
afterAll(() => rmSync(folder, { recursive: true }));
const tiny = configs["qwen3-tiny"];

const machine: Machine = { commit: "abc", date: "2026-01-02T03:04:05.000Z", cpu: "A <CPU>", cores: 2, memoryGiB: 8, node: "v24.0.0", v8: "13", flags: [], env: {}, threads: 2 };
const around = (x: number): Summary => summarize([0.9 * x, x, 1.1 * x]);
const measured = (work: string, peer: string, ours: number, theirs: number): LlmRow => ({ device: "cpu", work, peer, weights: "Q4_0", ours: around(ours), theirs: around(theirs), ratio: around(ours / theirs) });
const result: PeerResult = {
  model: "qwen3-0.6b",
  llm: { machine, rows: [measured("decode", "a", 100, 50), { device: "cpu", work: "decode", peer: "b", weights: "", reason: "not | installed" }, { device: "cpu", work: "prefill 128", peer: "b", weights: "", reason: "not | installed" }, measured("prefill 128", "a", 30, 60)] },
  ops: { machine, rows: [{ op: "exp", seconds: { "mlx-vk": around(1e-3), a: around(2e-3) }, reasons: { b: "has no such op" }, ratio: around(2) }] },
};

describe("reports", () => {
  test("a table has a row per measurement, and one for the same reason", () => {
    const table = markdown(result);
    expect(table).toContain("| decode | a | Q4_0 | 100 | 50.0 | **2.00** (1.84-2.16) |");
    expect(table).toContain("| prefill 128 | a | Q4_0 | 30.0 | 60.0 | **0.500** (0.460-0.540) |");
    expect(table).toContain("| decode, prefill 128 | b |  |  |  | not \\| installed |");
    expect(table).toContain("| exp | 1.00 ms | 2.00 ms | - | **2.00** (1.84-2.16) |");
    expect(table).toContain("2026-01-02");
    expect(table).not.toContain("quick");
    expect(markdown({ ...result, ops: { ...(result.ops as NonNullable<PeerResult["ops"]>), quick: true } })).toContain("2026-01-02, a quick run:");
  });
  test("a chart draws speeds as parts of the fastest, and names who is missing", () => {
    const chart = svg(result);
    expect(chart.startsWith("<svg")).toBe(true);
    const bars = [...chart.matchAll(/<rect class="(\w+)" x="210" y="\d+" width="(\d+)"/g)].map((m) => [m[1], Number(m[2])]);
    // decode: ours, half as fast, absent; prefill: ours is half as fast as the other, which spans the whole width.
    expect(bars).toEqual([["ours", 190], ["theirs", 95], ["theirs", 1], ["ours", 190], ["theirs", 380], ["theirs", 1]]);
    expect(chart).toContain("prefers-color-scheme:dark");
    expect(chart).toContain("not measured");
    expect(svg({ ...result, model: "<&" })).toContain("&lt;&amp;");
  });
  test("a part replaces its rows and keeps the others, unless the machine is another", () => {
    const later: PeerResult = { model: result.model, llm: { machine: { ...machine, commit: "def" }, rows: [measured("decode", "a", 100, 25), measured("decode", "c", 1, 1)] } };
    const merged = merge(result, later);
    expect(merged.llm?.machine.commit).toBe("def");
    expect(merged.llm?.rows.map((r) => [r.work, r.peer, r.ratio?.median])).toEqual([["decode", "a", 4], ["decode", "b", undefined], ["prefill 128", "b", undefined], ["prefill 128", "a", 0.5], ["decode", "c", 1]]);
    expect(merged.ops).toEqual(result.ops);
    expect(merge({ ...result, llm: { machine: { ...machine, node: "v20" }, rows: result.llm?.rows ?? [] } }, later).llm?.rows).toHaveLength(2);
    expect(merge({ ...result, model: "other" }, later)).toBe(later);
  });
  test("README's table and the chart are those of the committed result", () => {
    const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");
    const committed = JSON.parse(read("../bench/peers/result.json")) as PeerResult;
    const pattern = /(<!-- peers:begin -->)[\s\S]*(<!-- peers:end -->)/;
    const readme = read("../README.md");
    const wanted = readme.replace(pattern, (_, begin: string, end: string) => `${begin}\n${markdown(committed)}\n${end}`);
    if (process.env["UPDATE_DOCS"]) {
      writeFileSync(new URL("../README.md", import.meta.url), wanted);
      writeFileSync(new URL("../bench/peers/chart.svg", import.meta.url), svg(committed));
      return;
    }
    expect(readme).toMatch(pattern);
    expect(readme).toBe(wanted);
    expect(read("../bench/peers/chart.svg")).toBe(svg(committed));
  });
});

/** Fields of a protobuf message: [number, value], where a value is a number or bytes. */
function fields(bytes: Uint8Array): [number, number | Uint8Array][] {
  const out: [number, number | Uint8Array][] = [];
  let at = 0;
  const varint = (): number => {
    let x = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = BigInt(bytes[at++] as number);
      x |= (byte & 127n) << shift;
      if (byte < 128n) return Number(BigInt.asIntN(64, x));
    }
  };
  while (at < bytes.length) {
    const key = varint();
    if ((key & 7) === 0) out.push([key >> 3, varint()]);
    else {
      const length = (key & 7) === 5 ? 4 : varint();
      out.push([key >> 3, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return out;
}
const all = (bytes: Uint8Array, field: number): (number | Uint8Array)[] => fields(bytes).filter(([n]) => n === field).map(([, v]) => v);
const messages = (bytes: Uint8Array, field: number): Uint8Array[] => all(bytes, field) as Uint8Array[];
const text = (bytes: Uint8Array, field: number): string[] => messages(bytes, field).map((b) => Buffer.from(b).toString());

describe("ONNX files", () => {
  test("what is written can be read back, field by field", () => {
    const model = encodeOnnx({
      nodes: [{ op: "Op", inputs: ["x", "", "w"], outputs: ["y"], domain: "com.microsoft", attributes: { axis: { i: -1 }, epsilon: { f: 0.5 }, pads: { ints: [1, 300] } } }],
      weights: [{ name: "w", type: "uint8", shape: [2, 300], data: { offset: 4096, length: 600 } }, { name: "v", type: "float", shape: [1], data: new Uint8Array([0, 0, 128, 63]) }],
      inputs: [{ name: "x", type: "float", shape: ["batch_size", 3] }],
      outputs: [{ name: "y", type: "int64", shape: [] }],
    }, "file");
    const graph = messages(model, 7)[0] as Uint8Array;
    const node = messages(graph, 1)[0] as Uint8Array;
    expect([text(node, 1), text(node, 2), text(node, 4), text(node, 7)]).toEqual([["x", "", "w"], ["y"], ["Op"], ["com.microsoft"]]);
    const attributes = messages(node, 5);
    expect(attributes.map((a) => [text(a, 1)[0], all(a, 20)[0]])).toEqual([["axis", 2], ["epsilon", 1], ["pads", 7]]);
    expect([all(attributes[0] as Uint8Array, 3), all(attributes[2] as Uint8Array, 8)]).toEqual([[-1], [1, 300]]);
    expect(new DataView(Uint8Array.from(messages(attributes[1] as Uint8Array, 2)[0] as Uint8Array).buffer).getFloat32(0, true)).toBe(0.5);
    const [outside, inside] = messages(graph, 5) as [Uint8Array, Uint8Array];
    expect([all(outside, 1), all(outside, 2), all(outside, 14), text(outside, 8)]).toEqual([[2, 300], [2], [1], ["w"]]);
    expect(Object.fromEntries(messages(outside, 13).map((e) => [text(e, 1)[0], text(e, 2)[0]]))).toEqual({ location: "file", offset: "4096", length: "600" });
    expect([...(messages(inside, 9)[0] as Uint8Array)]).toEqual([0, 0, 128, 63]);
    expect(text(messages(model, 8)[1] as Uint8Array, 1)).toEqual(["com.microsoft"]);
  });
  test("the weights' file repeats patterns from where it is told, on pages", () => {
    const path = join(folder, "weights");
    const file = new WeightFile(path);
    expect(file.repeat(Uint8Array.of(1, 2, 3), 1, 5)).toEqual({ offset: 0, length: 5 });
    expect(file.repeat(Uint8Array.of(7), 0, 2)).toEqual({ offset: 4096, length: 2 });
    file.close();
    const bytes = readFileSync(path);
    expect([...bytes.subarray(0, 5), ...bytes.subarray(4096)]).toEqual([2, 3, 1, 2, 3, 7, 7]);
  });
  test("the decoder's graph is complete: every input of a node is made before it, and its weights are those that a reference reads", () => {
    const file = new WeightFile(join(folder, "graph"));
    const graph = qwen3Graph(tiny, file);
    file.close();
    const known = new Set(["", ...graph.inputs.map((v) => v.name), ...graph.weights.map((w) => w.name)]);
    for (const n of graph.nodes) {
      for (const name of n.inputs) expect(known, `${n.op} reads ${name}`).toContain(name);
      for (const name of n.outputs) known.add(name);
    }
    for (const v of graph.outputs) expect(known).toContain(v.name);
    const bytes = readFileSync(join(folder, "graph"));
    const [name, , columns] = matrices(tiny)[3] as [string, number, number];
    const place = (what: string): Buffer => {
      const { offset, length } = graph.weights.find((w) => w.name === `${name}.${what}`)?.data as { offset: number; length: number };
      return bytes.subarray(offset, offset + length);
    };
    const row = 5 * columns;
    const got = Array.from({ length: columns }, (_, k) => ((place("levels")[(row + k) >> 1] as number) >> (4 * (k % 2)) & 15) - 8).map((level, k) => level * place("scales").readFloatLE(4 * Math.floor((row + k) / 32)));
    expect(got).toEqual([...onnxWeights(tiny)(name).subarray(row, row + columns)]);
  });
});

describe("checks before timing", () => {
  test("our answers pass, other tokens do not", async () => {
    const path = syntheticCheckpoint("qwen3-tiny", tiny, "4bit-g128", folder);
    const weights = checkpointWeights(path, tiny);
    const engine = await openModel(path);
    const [prompt] = checkPrompts as [number[]];
    const tokens = await engine.generate(prompt, 3);
    checkTokens("ours", weights, prompt, tokens);
    expect(() => checkTokens("ours", weights, prompt, [((tokens[0] as number) + 1) % tiny.vocab_size])).toThrow(/ours chose token/);
    // The answers of a model with other weights.
    expect(() => checkTokens("ours", ggufWeights(tiny, "Q4_0"), prompt, tokens)).toThrow(/standard deviations above/);
  });
  test.skipIf(version("onnxruntime-node") === undefined)("the ONNX decoder's logits are those of the float64 model", async () => {
    const ort = createRequire(import.meta.url)(fileOf("onnxruntime-node", "dist/index.js"));
    // With products in float32, two layers keep 6 digits.
    const path = syntheticOnnx("qwen3-tiny", tiny, { accuracy: 0 }, folder);
    expect(statSync(join(path, "onnx", "model_q4.onnx_data")).size).toBeGreaterThan(100_000);
    const session = await ort.InferenceSession.create(join(path, "onnx", "model_q4.onnx"), { intraOpNumThreads: 1 });
    const prompt = checkPrompts[2] as number[];
    const int64 = (values: readonly number[]) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const empty = () => new ort.Tensor("float32", new Float32Array(0), [1, tiny.num_key_value_heads, 0, tiny.head_dim]);
    const past = Object.fromEntries([0, 1].flatMap((i) => ["key", "value"].map((part) => [`past_key_values.${i}.${part}`, empty()])));
    const { logits } = await session.run({ input_ids: int64(prompt), attention_mask: int64(prompt.map(() => 1)), ...past });
    const want = referenceLogits(tiny, onnxWeights(tiny), prompt);
    const range = Math.max(...want.map(Math.abs));
    const worst = Math.max(...want.map((x, i) => Math.abs(x - logits.data[i])));
    expect(worst).toBeLessThan(1e-5 * range);
  });
});

test("two commits: ratios pair the rounds, and count only outside the noise", () => {
  const round = (...values: [string, number, ("lower" | "higher")?][]): Result[] => values.map(([name, value, better = "lower"]) => ({ name, unit: "s", better, value: summarize([value]) }));
  // A machine that becomes twice as slow from round to round: the pairs tell all the same.
  const base = [1, 2, 4].map((x) => round(["steady", 1], ["drifting", x], ["noisy", x], ["tok/s", 10, "higher"], ["gone", 1]));
  const head = [1, 2, 4].map((x) => round(["steady", 1.01], ["drifting", x / 2], ["noisy", x === 2 ? 1 : x], ["tok/s", 20, "higher"], ["new", 1]));
  const found = compareRounds(base, head).map((c) => [c.name, c.ratio.median, c.verdict]);
  expect(found).toEqual([["steady", 1 / 1.01, "worse"], ["drifting", 2, "better"], ["noisy", 1, "same"], ["tok/s", 2, "better"]]);
  // The roofs' code is the same on both sides: where they differ, the machine did.
  const drifted = compareRounds([round(["roof read", 1], ["x", 1], ["y", 1])], [round(["roof read", 0.5], ["x", 0.6], ["y", 0.4])]);
  expect(drifted.map((c) => [c.name, c.verdict])).toEqual([["roof read", "better"], ["x", "same"], ["y", "better"]]);
});
test("the commands of a list are timed one by one, and compute the same", () => {
  const words = new Int32Array(40);
  words.set([7, 0, 100, 0, 48], 4);
  // One more runs together with the second.
  words.set([8, 0, 200, 0, 80, 1], 12);
  words.set([8, 0, 300, 0, 112], 20);
  expect(commandsOf(words, { start: 16, end: 112 })).toEqual([{ kernel: 7, units: 100, members: 0, list: { start: 16, end: 48 } }, { kernel: 8, units: 200, members: 1, list: { start: 48, end: 112 } }]);
  const x = mx.add(mx.arange(3000), 0.5);
  mx.eval(x);
  const compute = (): number[] => [mx.sum(mx.exp(mx.multiply(x, -0.01)), -1), mx.cumsum(x)].map((y) => Number(mx.max(y).item()));
  const want = compute();
  const got: number[] = [];
  const spent = timeLists(wasmBackend(), true, () => got.push(...compute()));
  expect(got).toEqual(want);
  expect(spent.size).toBeGreaterThan(2);
  for (const [name, row] of spent) expect([name, row.calls > 0, row.milliseconds >= 0]).toEqual([name, true, true]);
  const whole = timeLists(wasmBackend(), false, () => got.push(...compute()));
  expect([...whole.keys()]).toEqual(["lists"]);
  expect((whole.get("lists")?.calls ?? 0) < [...spent.values()].reduce((n, r) => n + r.calls, 0)).toBe(true);
  expect(Object.hasOwn(wasmBackend().pool, "run")).toBe(false);
});
