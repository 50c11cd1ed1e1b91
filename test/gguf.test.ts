/** GGUF files: written here by the format's description, by the benchmark's writer and by saveGGUF; values of all block formats against plain loops; hostile files. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { syntheticGguf } from "../bench/peers/gguf.ts";
import { wasmBackend } from "../src/backend/wasm/index.ts";
import { fromFloat16Bits, toFloat16Bits } from "../src/core/dtype.ts";
import { valuesOf } from "../src/debug/oracle.ts";
import { core as mx } from "../src/index.ts";
import { halfBits } from "../src/io/gguf-blocks.ts";
import { randomSource } from "./helpers/check.ts";

type Arr = InstanceType<typeof mx.MxArray>;
const folder = mkdtempSync(join(tmpdir(), "mlx-vk-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));
let number = 0;
const path = (): string => join(folder, `${number++}.gguf`);
const put = (bytes: Uint8Array): string => {
  const p = path();
  writeFileSync(p, bytes);
  return p;
};
const evaluated = (a: Arr): Float64Array => valuesOf(a.desc);

const u32 = (x: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(x >>> 0);
  return b;
};
const u64 = (x: number | bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(x));
  return b;
};
const text = (s: string): Buffer => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
const pair = (key: string, type: number, ...value: Buffer[]): Buffer => Buffer.concat([text(key), u32(type), ...value]);
interface Entry {
  name: string;
  dims: (number | bigint)[];
  type: number;
  data: Buffer;
  offset?: number;
}
const padded = (b: Buffer, to = 32): Buffer => Buffer.concat([b, Buffer.alloc(Math.ceil(b.length / to) * to - b.length)]);
function file(
  tensors: Entry[],
  metadata: Buffer[] = [],
  { version = 3, alignment = 32, count = tensors.length as number | bigint, keys = metadata.length as number | bigint } = {},
): Buffer {
  let at = 0;
  const infos = tensors.map((t) => {
    const info = Buffer.concat([text(t.name), u32(t.dims.length), ...t.dims.map(u64), u32(t.type), u64(t.offset ?? at)]);
    at += Math.ceil(t.data.length / alignment) * alignment;
    return info;
  });
  const head = Buffer.concat([Buffer.from("GGUF"), u32(version), u64(count), u64(keys), ...metadata, ...infos]);
  return Buffer.concat([padded(head, alignment), ...tensors.map((t) => padded(t.data, alignment))]);
}
const floats = (...x: number[]): Buffer => Buffer.from(new Float32Array(x).buffer);

/** Random blocks with scales of a sensible size at the given bytes. */
function blocks(n: number, bytes: number, scales: readonly number[]): Buffer {
  const random = randomSource(bytes);
  const out = Buffer.from(Array.from({ length: n * bytes }, () => Math.floor(256 * random())));
  for (let b = 0; b < n; b++) for (const at of scales) out.writeUInt16LE(toFloat16Bits((random() - 0.5) / 16), b * bytes + at);
  return out;
}
const f16 = (b: Buffer, at: number): number => fromFloat16Bits(b.readUInt16LE(at));

/** The block formats once more, as walks that push one weight after another. */
const walks: Record<string, { type: number; weights: number; bytes: number; scales: number[]; walk: (b: Buffer) => number[] }> = {
  Q4_0: {
    type: 2,
    weights: 32,
    bytes: 18,
    scales: [0],
    walk: (b) =>
      [...b.subarray(2)]
        .map((x) => x & 15)
        .concat([...b.subarray(2)].map((x) => x >> 4))
        .map((q) => f16(b, 0) * (q - 8)),
  },
  Q4_1: {
    type: 3,
    weights: 32,
    bytes: 20,
    scales: [0, 2],
    walk: (b) =>
      [...b.subarray(4)]
        .map((x) => x & 15)
        .concat([...b.subarray(4)].map((x) => x >> 4))
        .map((q) => f16(b, 0) * q + f16(b, 2)),
  },
  Q8_0: { type: 8, weights: 32, bytes: 34, scales: [0], walk: (b) => Array.from({ length: 32 }, (_, i) => f16(b, 0) * b.readInt8(2 + i)) },
  Q5_0: {
    type: 6,
    weights: 32,
    bytes: 22,
    scales: [0],
    walk: (b) =>
      Array.from({ length: 32 }, (_, i) => f16(b, 0) * ((i < 16 ? (b[6 + i] as number) & 15 : (b[6 + i - 16] as number) >> 4) + ((b.readUInt32LE(2) >>> i) & 1) * 16 - 16)),
  },
  Q5_1: {
    type: 7,
    weights: 32,
    bytes: 24,
    scales: [0, 2],
    walk: (b) =>
      Array.from({ length: 32 }, (_, i) => f16(b, 0) * ((i < 16 ? (b[8 + i] as number) & 15 : (b[8 + i - 16] as number) >> 4) + ((b.readUInt32LE(4) >>> i) & 1) * 16) + f16(b, 2)),
  },
  Q2_K: {
    type: 10,
    weights: 256,
    bytes: 84,
    scales: [80, 82],
    walk(b) {
      const out: number[] = [];
      let sub = 0;
      for (let q = 16; q < 80; q += 32) {
        for (let shift = 0; shift < 8; shift += 2) {
          for (const first of [0, 16]) {
            const s = b[sub++] as number;
            for (let l = 0; l < 16; l++) out.push(f16(b, 80) * (s % 16) * (((b[q + first + l] as number) >> shift) % 4) - f16(b, 82) * Math.floor(s / 16));
          }
        }
      }
      return out;
    },
  },
  Q3_K: {
    type: 11,
    weights: 256,
    bytes: 110,
    scales: [108],
    walk(b) {
      // The scales' lower four bits are 16 nibbles (low ones first), their upper two 16 pairs of bits, four bytes side by side.
      const low = [...b.subarray(96, 104)].map((x) => x % 16).concat([...b.subarray(96, 104)].map((x) => Math.floor(x / 16)));
      const high = [0, 2, 4, 6].flatMap((shift) => [...b.subarray(104, 108)].map((x) => (x >> shift) % 4));
      const out: number[] = [];
      let mask = 1;
      let sub = 0;
      for (let q = 32; q < 96; q += 32) {
        for (let shift = 0; shift < 8; shift += 2, mask *= 2) {
          for (const first of [0, 16]) {
            const scale = (low[sub] as number) + 16 * (high[sub++] as number) - 32;
            for (let l = first; l < first + 16; l++) out.push(f16(b, 108) * scale * ((((b[q + l] as number) >> shift) % 4) - ((b[l] as number) & mask ? 0 : 4)));
          }
        }
      }
      return out;
    },
  },
  Q4_K: { type: 12, weights: 256, bytes: 144, scales: [0, 2], walk: (b) => minimums(b, 16, undefined) },
  Q5_K: { type: 13, weights: 256, bytes: 176, scales: [0, 2], walk: (b) => minimums(b, 48, 16) },
  Q6_K: {
    type: 14,
    weights: 256,
    bytes: 210,
    scales: [208],
    walk(b) {
      const out = new Array<number>(256);
      for (const part of [0, 1]) {
        for (let l = 0; l < 32; l++) {
          const [x, y, h] = [b[64 * part + l] as number, b[64 * part + 32 + l] as number, b[128 + 32 * part + l] as number];
          const q = [(x & 15) + 16 * (h & 3), (y & 15) + 16 * ((h >> 2) & 3), (x >> 4) + 16 * ((h >> 4) & 3), (y >> 4) + 16 * (h >> 6)];
          q.forEach((v, g) => {
            out[128 * part + 32 * g + l] = f16(b, 208) * b.readInt8(192 + 8 * part + 2 * g + (l >> 4)) * (v - 32);
          });
        }
      }
      return out;
    },
  },
};
function minimums(b: Buffer, nibbles: number, fifth: number | undefined): number[] {
  const s = b.subarray(4, 16);
  const at = (i: number): number => s[i] as number;
  const scales = [0, 1, 2, 3].map((j) => at(j) & 63).concat([0, 1, 2, 3].map((j) => (at(8 + j) & 15) + 16 * (at(j) >> 6)));
  const mins = [4, 5, 6, 7].map((j) => at(j) & 63).concat([4, 5, 6, 7].map((j) => (at(4 + j) >> 4) + 16 * (at(j) >> 6)));
  const out: number[] = [];
  for (let sub = 0; sub < 8; sub++) {
    for (let l = 0; l < 32; l++) {
      const byte = b[nibbles + 32 * Math.floor(sub / 2) + l] as number;
      const q = (sub % 2 ? byte >> 4 : byte % 16) + (fifth === undefined ? 0 : 16 * (((b[fifth + l] as number) >> sub) & 1));
      out.push(f16(b, 0) * (scales[sub] as number) * q - f16(b, 2) * (mins[sub] as number));
    }
  }
  return out;
}

describe("block formats", () => {
  for (const [name, { type, weights, bytes, scales, walk }] of Object.entries(walks)) {
    it(name, () => {
      // More bytes than are read at a time, in the first row count that allows it.
      const rows = Math.ceil(3e5 / bytes / 4);
      const columns = 4 * weights;
      const data = blocks(rows * 4, bytes, scales);
      const want = Array.from({ length: rows * 4 }, (_, b) => walk(data.subarray(b * bytes, (b + 1) * bytes))).flat();
      const arrays = mx.load(put(file([{ name: "a.weight", dims: [columns, rows], type, data }]))) as Record<string, Arr>;
      const affine = weights === 32 && !name.startsWith("Q5");
      expect(Object.keys(arrays)).toEqual(affine ? ["a.weight", "a.scales", "a.biases"] : ["a.weight"]);
      const w = arrays["a.weight"] as Arr;
      let got: Float64Array;
      if (affine) {
        const bits = name === "Q8_0" ? 8 : 4;
        expect([w.dtype.name, ...w.shape]).toEqual(["uint32", rows, (columns * bits) / 32]);
        expect([arrays["a.scales"]?.dtype.name, arrays["a.biases"]?.shape]).toEqual(["float16", [rows, columns / 32]]);
        const wide = (key: string): Arr => mx.astype(arrays[key] as Arr, mx.float32);
        got = evaluated(mx.dequantize(w, wide("a.scales"), wide("a.biases"), 32, bits));
      } else {
        expect([w.dtype.name, ...w.shape]).toEqual(["float16", rows, columns]);
        got = evaluated(w);
      }
      // Affine: float32 roundings of a product below 8 and of the sum; dequantized: half an ulp of float16 (2^-24 is its smallest number), plus float32 roundings before it.
      const worst = want.reduce((most, x, i) => Math.max(most, Math.abs((got[i] as number) - x) - Math.abs(x) * (affine ? 2 ** -22 : 2 ** -11 * 1.001)), 0);
      expect(worst).toBeLessThanOrEqual(affine ? 2 ** -20 : 2 ** -24);
    });
  }
  it("float16 conversion agrees with the exact one for every rounding case", () => {
    const random = randomSource(1);
    const word = new Uint32Array(1);
    const float = new Float32Array(word.buffer);
    for (let i = 0; i < 200_000; i++) {
      word[0] = i < 65536 * 2 ? (i << 12) | 0x38000000 | (i % 3) : random() * 2 ** 32;
      const x = float[0] as number;
      const [got, want] = [halfBits(x), toFloat16Bits(x)];
      if (got !== want) throw new Error(`${x}: got ${got}, want ${want}`);
    }
  });
  it("reads the files of the benchmark's writer", () => {
    const config = {
      model_type: "qwen3",
      hidden_size: 32,
      num_hidden_layers: 1,
      intermediate_size: 64,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      vocab_size: 300,
      max_position_embeddings: 64,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
      tie_word_embeddings: true,
    };
    const p = syntheticGguf("tiny", config as never, "Q4_1", folder);
    const [arrays, metadata] = mx.load(p, "gguf", true);
    expect(arrays["blk.0.attn_q.weight"]?.shape).toEqual([32, 4]);
    expect(arrays["blk.0.attn_q.scales"]?.shape).toEqual([32, 1]);
    expect([...evaluated(arrays["output_norm.weight"] as Arr)]).toEqual(new Array(32).fill(1));
    expect(metadata["general.architecture"]).toBe("qwen3");
    expect((metadata["tokenizer.ggml.tokens"] as string[]).length).toBe(300);
    expect((metadata["qwen3.block_count"] as Arr).item()).toBe(1);
  });
});

describe("saveGGUF", () => {
  it("keeps arrays, shapes, dtypes and metadata", () => {
    const arrays: Record<string, Arr> = {
      f: mx.array([
        [1, 2.5, -3],
        [4, 5, 6],
      ]),
      h: mx.array([1, 2, 3], mx.float16),
      b: mx.array([[[0.5]]], mx.bfloat16),
      d: mx.array([Math.PI], mx.float64),
      i8: mx.array([-1, 2], mx.int8),
      i16: mx.array([-300], mx.int16),
      i32: mx.array([[70000], [-70000]], mx.int32),
      i64: mx.array([2 ** 40], mx.int64),
      scalar: mx.array(7),
      empty: mx.zeros([0, 3]),
      view: mx.transpose(
        mx.array([
          [1, 2],
          [3, 4],
        ]),
      ),
    };
    const metadata = { name: "näme", list: ["a", "", "c"], on: true, x: 1.5, n: mx.array(3, mx.uint32), many: mx.array([1, 2, 3], mx.int64), bytes: mx.array([1, 255], mx.uint8) };
    const p = path();
    mx.saveGGUF(p.slice(0, -5), arrays, metadata);
    const [back, found] = mx.load(p as `${string}.gguf`, null, true);
    expect(Object.keys(back).sort()).toEqual(Object.keys(arrays).sort());
    for (const [name, a] of Object.entries(arrays)) {
      expect([back[name]?.dtype.name, back[name]?.shape], name).toEqual([a.dtype.name, a.shape]);
      expect(evaluated(back[name] as Arr), name).toEqual(evaluated(a));
    }
    expect([found["name"], found["list"], (found["on"] as Arr).item(), (found["x"] as Arr).item()]).toEqual(["näme", ["a", "", "c"], true, 1.5]);
    expect([(found["n"] as Arr).dtype.name, (found["n"] as Arr).shape, (found["many"] as Arr).dtype.name, [...evaluated(found["many"] as Arr)]]).toEqual([
      "uint32",
      [],
      "int64",
      [1, 2, 3],
    ]);
    expect([...evaluated(found["bytes"] as Arr)]).toEqual([1, 255]);
  });
  it("writes the bytes that the format asks for", () => {
    const p = path();
    mx.saveGGUF(p, { a: mx.array([1, 2, 3]), "b.weight": mx.array([[4, 5]], mx.int32) }, { s: "x" });
    const data = Buffer.from(new Int32Array([4, 5]).buffer);
    expect(
      readFileSync(p).equals(
        file(
          [
            { name: "a", dims: [3], type: 0, data: floats(1, 2, 3) },
            { name: "b.weight", dims: [2, 1], type: 26, data },
          ],
          [pair("s", 8, text("x"))],
        ),
      ),
    ).toBe(true);
  });
  it("follows general.alignment", () => {
    const p = path();
    mx.saveGGUF(p, { a: mx.array([1]), b: mx.array([2]) }, { "general.alignment": mx.array(64, mx.uint32) });
    const tensors = [
      { name: "a", dims: [1], type: 0, data: floats(1) },
      { name: "b", dims: [1], type: 0, data: floats(2) },
    ];
    expect(readFileSync(p).equals(file(tensors, [pair("general.alignment", 4, u32(64))], { alignment: 64 }))).toBe(true);
    expect(evaluated(mx.load(p)["b"] as Arr)).toEqual(Float64Array.of(2));
  });
  it("refuses what the format does not have, and leaves no file", () => {
    const p = path();
    const one = mx.array([1]);
    expect(() => mx.saveGGUF(p, { a: mx.array([1], mx.uint32) })).toThrow('[saveGGUF] arrays of this type can not be saved, got uint32 for "a"');
    expect(() => mx.saveGGUF(p, { a: 3 as never })).toThrow("must be an array, got number");
    expect(() => mx.saveGGUF(p, { a: one }, { k: mx.zeros([2, 2]) })).toThrow("0 or 1 dimensions");
    expect(() => mx.saveGGUF(p, { a: one }, { k: mx.zeros([0]) })).toThrow("not be empty");
    expect(() => mx.saveGGUF(p, { a: one }, { k: mx.array([1], mx.float16) })).toThrow('got float16 for "k"');
    expect(() => mx.saveGGUF(p, { a: one }, { k: ["a", 1] as never })).toThrow("strings only or numbers only");
    expect(() => mx.saveGGUF(p, { a: one }, { "general.alignment": mx.array(12, mx.uint32) })).toThrow("general.alignment");
    expect(existsSync(p)).toBe(false);
  });
});

describe("hostile files", () => {
  const good = { name: "a", dims: [4], type: 0, data: floats(1, 2, 3, 4) };
  const fails = (bytes: Uint8Array, message: string | RegExp): void => {
    const before = wasmBackend().memory.counters.active;
    const p = put(bytes);
    const open = existsSync("/proc/self/fd") ? readdirSync("/proc/self/fd").length : 0;
    expect(() => mx.load(p)).toThrow(message);
    expect(() => mx.load(p)).toThrow(`[load] ${p}: `);
    expect(() => mx.load(bytes, "gguf", true)).toThrow(message);
    expect(wasmBackend().memory.counters.active, "arrays left over").toBe(before);
    if (open) expect(readdirSync("/proc/self/fd").length, "files left open").toBe(open);
  };
  it("no GGUF file, or another version", () => {
    fails(Buffer.alloc(0), "at least 24 bytes");
    fails(Buffer.alloc(100), 'begins with "GGUF"');
    fails(file([good], [], { version: 1 }), "versions 2 and 3");
    fails(Buffer.concat([Buffer.from("GGUF"), Buffer.from([0, 0, 0, 3]), Buffer.alloc(100)]), "big-endian");
  });
  it("version 2 is read", () => expect(evaluated(mx.load(file([good], [], { version: 2 }), "gguf")["a"] as Arr)).toEqual(Float64Array.of(1, 2, 3, 4)));
  it("counts beyond the file", () => {
    fails(file([good], [], { count: 2 ** 40 }), "too short");
    fails(file([good], [], { count: 2n ** 64n - 1n }), "can not be");
    fails(file([good], [], { keys: 2 ** 50 }), "too short");
    fails(file([good], [], { count: 2 }), /\[load\]/);
  });
  it("metadata", () => {
    fails(file([good], [pair("k", 8, u64(2 ** 50))]), "the file ends inside");
    fails(file([good], [pair("k", 9, u32(4), u64(2 ** 40))]), "a list of 1099511627776 elements");
    fails(file([good], [pair("k", 9, u32(8), u64(2 ** 40))]), "a list of 1099511627776 elements");
    fails(file([good], [pair("k", 9, u32(9), u64(1), u32(4), u64(1), u32(1))]), "list of lists");
    fails(file([good], [pair("k", 13)]), "unknown type, got 13");
    fails(file([good], [pair("k", 9, u32(99), u64(1))]), "unknown type, got 99");
    fails(file([good], [pair("k", 0, Buffer.from([1])), pair("k", 0, Buffer.from([1]))]), 'the key "k" twice');
    fails(file([good], [pair("k", 8, u64(2), Buffer.from([0xff, 0xfe]))]), "UTF-8");
    for (const n of [0, 12]) fails(file([good], [pair("general.alignment", 4, u32(n))]), "general.alignment");
    fails(file([good], [pair("general.alignment", 8, text("32"))]), "general.alignment");
  });
  it("tensors", () => {
    fails(file([{ ...good, dims: [2 ** 40] }]), "dimension");
    fails(file([{ ...good, dims: [2n ** 64n - 1n] }]), "can not be");
    fails(file([{ ...good, dims: [2 ** 30, 2 ** 30] }]), /too large|outside/);
    fails(file([{ ...good, dims: [1, 1, 1, 1, 1, 1, 1, 1, 1] }]), "too many dimensions");
    fails(file([{ ...good, type: 16 }]), "unsupported type, got 16");
    fails(file([{ ...good, dims: [16] }]), "outside the file");
    fails(file([{ ...good, offset: 8 }]), "multiple of 32");
    fails(file([{ ...good, offset: 2 ** 40 }]), "outside the file");
    fails(file([good, { ...good, name: "b", offset: 0 }]), 'tensors "a" and "b" overlap');
    fails(file([good, good]), 'the name "a"');
    fails(file([{ ...good, dims: [33], type: 8, data: Buffer.alloc(68) }]), "multiple of 32 elements");
    fails(
      file([
        { ...good, name: "x.weight", dims: [32], type: 8, data: Buffer.alloc(34) },
        { ...good, name: "x.scales" },
      ]),
      'the name "x.scales"',
    );
  });
  it("every truncation is an error, every changed byte an error or a result", () => {
    const whole = file(
      [good, { name: "b.weight", dims: [32, 2], type: 2, data: Buffer.alloc(36) }],
      [pair("s", 8, text("abc")), pair("l", 9, u32(8), u64(2), text("x"), text("y")), pair("n", 4, u32(5))],
    );
    for (let n = 0; n < whole.length - 28; n++) expect(() => mx.load(whole.subarray(0, n), "gguf"), `${n} bytes`).toThrow("[load]");
    for (let i = 0; i < whole.length; i++) {
      for (const flip of [1, 0x80, 0xff]) {
        const bytes = Buffer.from(whole);
        bytes[i] = (bytes[i] as number) ^ flip;
        try {
          mx.dispose(mx.load(bytes, "gguf", true));
        } catch (error) {
          expect((error as Error).message).toMatch(/^\[load\]/);
        }
      }
    }
  });
  it("names such as __proto__ are names", () => {
    const arrays = mx.load(file([{ ...good, name: "__proto__" }]), "gguf");
    expect(Object.keys(arrays)).toEqual(["__proto__"]);
  });
});
