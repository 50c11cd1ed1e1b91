/** The benchmark's own parts: statistics, comparison, synthetic checkpoints, GGUF files. Speed itself is not tested. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { change } from "../bench/compare.ts";
import { type Result, measureTogether, quantile, ratios, summarize } from "../bench/harness.ts";
import { bytesPerToken, configs, formats, matrices, norms } from "../bench/models/configs.ts";
import { openModel } from "../bench/models/decode.ts";
import { randomStream, syntheticCheckpoint } from "../bench/models/synthetic.ts";
import { promptIds } from "../bench/peers/engine.ts";
import { ggufName, syntheticGguf } from "../bench/peers/gguf.ts";
import { fromBfloat16Bits, fromFloat16Bits } from "../src/core/dtype.ts";
import { readSafetensorsHeader } from "../src/io/safetensors.ts";

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-bench-test-"));
afterAll(() => rmSync(folder, { recursive: true }));
const tiny = configs["qwen3-tiny"];

describe("statistics", () => {
  test("quantiles interpolate between neighbours", () => {
    expect([0, 0.25, 0.5, 0.9, 1].map((q) => quantile([1, 2, 3, 4, 5], q))).toEqual([1, 2, 3, 4.6, 5]);
    expect(quantile([7], 0.9)).toBe(7);
    expect(() => quantile([], 0.5)).toThrow(/at least one sample/);
  });
  test("summaries sort a copy", () => {
    const samples = [3, 1, 2];
    expect(summarize(samples)).toEqual({ count: 3, min: 1, p10: 1.2, median: 2, p90: 2.8, max: 3 });
    expect(samples).toEqual([3, 1, 2]);
  });
  test("ratios pair samples of the same round", () => {
    expect(ratios([2, 40, 6], [1, 10, 2]).median).toBe(3);
    expect(() => ratios([1], [])).toThrow(/got 1 and 0/);
  });
  test("functions measured together take turns, and twice the work takes about twice the time", () => {
    const order: string[] = [];
    // A clock of our own: a busy machine does not change what is measured.
    let clock = 100;
    const spy = vi.spyOn(performance, "now").mockImplementation(() => clock);
    const spin = (name: string, ms: number) => () => {
      order.push(name);
      clock += ms;
    };
    const times = measureTogether({ a: spin("a", 2), b: spin("b", 4) }, { samples: 5, sampleMs: 1, warmupMs: 1 });
    spy.mockRestore();
    expect(order.slice(-10).join("")).toBe("abbaabbaab");
    expect(ratios(times.b, times.a).median).toBeCloseTo(2, 12);
    expect(times.a.map((t) => t.toFixed(6))).toEqual(Array(5).fill("0.002000"));
  });
  test("a change counts only outside the noise, in the direction that is better", () => {
    const result = (unit: string, better: "lower" | "higher", samples: number[]): Result => ({ name: "x", unit, better, value: summarize(samples) });
    const tokens = (...s: number[]): Result => result("tok/s", "higher", s);
    expect(change(tokens(100, 101, 99), tokens(150, 149, 151))).toMatchObject({ verdict: "better" });
    expect(change(tokens(100, 50, 150), tokens(110, 109, 111)).verdict).toBe("same");
    expect(change(result("s", "lower", [1, 1.01, 0.99]), result("s", "lower", [2, 2, 2]))).toMatchObject({ verdict: "worse", ratio: 0.5 });
  });
});

describe("synthetic checkpoints", () => {
  test("configurations have the published numbers of parameters", () => {
    const parameters = (c: (typeof configs)[keyof typeof configs]): number => matrices(c).reduce((n, [, r, k]) => n + r * k, 0) + norms(c).reduce((n, [, l]) => n + l, 0);
    // Qwen3-0.6B: 596 million, 1.7B: 1.72 billion, 4B: 4.02 billion parameters (tied embeddings).
    expect(parameters(configs["qwen3-0.6b"])).toBe(596_049_920);
    expect(parameters(configs["qwen3-1.7b"]) / 1e9).toBeCloseTo(1.72, 2);
    expect(parameters(configs["qwen3-4b"]) / 1e9).toBeCloseTo(4.02, 2);
    expect(bytesPerToken(configs["qwen3-0.6b"], formats["4bit-g128"])).toBeCloseTo(596e6 * (0.5 + 4 / 128), -6);
  });
  test.each(["4bit-g128", "4bit-g64", "8bit-g64", "bf16"] as const)("%s: names, shapes, config, and weights of deviation 1/sqrt(columns)", (formatName) => {
    const format = formats[formatName];
    const path = syntheticCheckpoint("qwen3-tiny", tiny, formatName, folder);
    const file = join(path, "model.safetensors");
    const { entries, metadata } = readSafetensorsHeader(file);
    const byName = new Map(entries.map((e) => [e.name, e]));
    expect(metadata).toEqual({ format: "mlx" });
    const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as { quantization?: unknown };
    expect(config.quantization).toEqual(format.bits === 16 ? undefined : { group_size: format.groupSize, bits: format.bits });
    const bytes = readFileSync(file);
    const name = "model.layers.1.mlp.down_proj";
    const [rows, columns] = [tiny.hidden_size, tiny.intermediate_size];
    const weight = byName.get(`${name}.weight`);
    const u16 = (tensor: string, i: number): number => bytes.readUInt16LE((byName.get(`${name}.${tensor}`)?.begin as number) + 2 * i);
    const values: number[] = [];
    for (let i = 0; i < rows * columns; i++) {
      if (format.bits === 16) values.push(fromBfloat16Bits(u16("weight", i)));
      else {
        const word = bytes.readUInt32LE((weight?.begin as number) + 4 * Math.floor((i * format.bits) / 32));
        const level = (word >>> (format.bits * (i % (32 / format.bits)))) & (2 ** format.bits - 1);
        const group = Math.floor(i / format.groupSize);
        values.push(fromBfloat16Bits(u16("scales", group)) * level + fromBfloat16Bits(u16("biases", group)));
      }
    }
    expect(weight?.shape).toEqual(format.bits === 16 ? [rows, columns] : [rows, (columns * format.bits) / 32]);
    const deviation = Math.sqrt(values.reduce((s, v) => s + v * v, 0) / values.length);
    // 32,768 samples: the deviation is known to about 0.4 %; scales vary by a quarter, which adds 1 %; bfloat16 biases 0.2 %.
    expect(Math.abs(deviation * Math.sqrt(columns) - 1)).toBeLessThan(0.03);
    expect(values.slice(0, columns)).not.toEqual(values.slice(columns, 2 * columns));
    expect(entries.length).toBe((format.bits === 16 ? 1 : 3) * matrices(tiny).length + norms(tiny).length);
  });
  test.each(["4bit-g128", "bf16"] as const)("%s loads, agrees with itself in prefill and decode, and is timed", async (formatName) => {
    const engine = await openModel(syntheticCheckpoint("qwen3-tiny", tiny, formatName, folder));
    for (const seconds of [await engine.prefill(20), await engine.decode(5, 4), engine.loadSeconds]) expect(seconds).toBeGreaterThan(0);
  });
  test("random streams and prompts repeat and stay in range", () => {
    const [a, b] = [randomStream(5), randomStream(5)];
    expect(Array.from({ length: 5 }, a)).toEqual(Array.from({ length: 5 }, b));
    const ids = promptIds(500, 151936);
    expect(ids).toEqual(promptIds(500, 151936));
    expect(Math.min(...ids)).toBeGreaterThanOrEqual(1000);
    expect(Math.max(...ids)).toBeLessThan(151936);
    expect(new Set(ids).size).toBeGreaterThan(490);
  });
});

/** A reader of GGUF files, written from the format's description. */
function readGguf(bytes: Buffer): { metadata: Map<string, unknown>; tensors: Map<string, { dims: number[]; type: number; begin: number }>; dataStart: number } {
  let at = 0;
  const u32 = (): number => bytes.readUInt32LE((at += 4) - 4);
  const u64 = (): number => Number(bytes.readBigUInt64LE((at += 8) - 8));
  const text = (): string => {
    const n = u64();
    return bytes.toString("utf8", at, (at += n));
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return u32() | 0;
    if (type === 6) return bytes.readFloatLE((at += 4) - 4);
    if (type === 8) return text();
    if (type !== 9) throw new Error(`value type ${type}`);
    const item = u32();
    return Array.from({ length: u64() }, () => value(item));
  };
  expect(bytes.toString("latin1", 0, 4)).toBe("GGUF");
  at = 4;
  expect(u32()).toBe(3);
  const [tensorCount, valueCount] = [u64(), u64()];
  const metadata = new Map(Array.from({ length: valueCount }, () => [text(), value(u32())] as const));
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text();
    return [name, { dims: Array.from({ length: u32() }, u64), type: u32(), begin: u64() }] as const;
  });
  const dataStart = Math.ceil(at / 32) * 32;
  return { metadata, tensors: new Map(infos.map(([n, t]) => [n, { ...t, begin: t.begin + dataStart }])), dataStart };
}

describe("GGUF", () => {
  test.each(["Q4_0", "Q4_1"] as const)("%s: metadata, aligned tensors, and weights of deviation 1/sqrt(columns)", (type) => {
    const bytes = readFileSync(syntheticGguf("qwen3-tiny", tiny, type, folder));
    const { metadata, tensors } = readGguf(bytes);
    expect(metadata.get("general.architecture")).toBe("qwen3");
    expect(metadata.get("qwen3.attention.head_count_kv")).toBe(tiny.num_key_value_heads);
    expect(metadata.get("qwen3.attention.layer_norm_rms_epsilon")).toBeCloseTo(1e-6, 12);
    const vocabulary = metadata.get("tokenizer.ggml.tokens") as string[];
    expect(new Set(vocabulary).size).toBe(tiny.vocab_size);
    expect(vocabulary).toContain("Ċ");
    expect(tensors.size).toBe(matrices(tiny).length + norms(tiny).length);
    const blockBytes = type === "Q4_0" ? 18 : 20;
    let end = 0;
    for (const [name, t] of tensors) {
      expect(t.begin % 32, name).toBe(0);
      expect(t.begin).toBeGreaterThanOrEqual(end);
      end = t.begin + (t.type === 0 ? 4 * (t.dims[0] as number) : ((t.dims[0] as number) * (t.dims[1] as number) * blockBytes) / 32);
    }
    expect(Math.ceil(end / 32) * 32).toBe(bytes.length);
    const down = tensors.get("blk.1.ffn_down.weight");
    expect(down?.dims).toEqual([tiny.intermediate_size, tiny.hidden_size]);
    let sum = 0;
    const count = tiny.intermediate_size * tiny.hidden_size;
    for (let b = 0; b < count / 32; b++) {
      const p = (down?.begin as number) + b * blockBytes;
      const scale = fromFloat16Bits(bytes.readUInt16LE(p));
      const least = type === "Q4_0" ? -8 * scale : fromFloat16Bits(bytes.readUInt16LE(p + 2));
      for (let i = 0; i < 16; i++) for (const q of [(bytes[p + blockBytes - 16 + i] as number) & 15, (bytes[p + blockBytes - 16 + i] as number) >> 4]) sum += (q * scale + least) ** 2;
    }
    // As above; Q4_0's zero lies half a level off the middle, which adds 1 %.
    expect(Math.abs(Math.sqrt((sum / count) * tiny.intermediate_size) - 1)).toBeLessThan(0.04);
    const norm = tensors.get("output_norm.weight");
    expect(bytes.readFloatLE(norm?.begin as number)).toBe(1);
  });
  test("every weight has a name in llama.cpp, and no two the same", () => {
    const names = [...matrices(tiny).map(([n]) => n), ...norms(tiny).map(([n]) => n)].map(ggufName);
    expect(new Set(names).size).toBe(names.length);
    expect(() => ggufName("model.unknown")).toThrow(/no GGUF name/);
  });
});
