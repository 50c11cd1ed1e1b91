/** Files: round trips, files written by NumPy, and hostile ones. Leaks are counted in the allocator and in /proc/self/fd. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { SharedMemory } from "../src/backend/wasm/memory.ts";
import { ArrayDesc, MxArray, hostBytes, readBits } from "../src/core/array.ts";
import { type Dtype, dtypes, fromBfloat16Bits } from "../src/core/dtype.ts";
import type { Storage } from "../src/core/storage.ts";
import { installHostMemory } from "../src/core/storage.ts";
import { load } from "../src/io/load.ts";
import { save } from "../src/io/npy.ts";
import { savez, savezCompressed } from "../src/io/npz.ts";
import { duplicateKey, loadSafetensors, loadShards, readSafetensorsHeader, saveSafetensors } from "../src/io/safetensors.ts";

const memory = new SharedMemory();
installHostMemory({ alloc: (n) => memory.alloc(n), free: (a, n) => memory.free(a, n), bytes: (a, n) => memory.bytes(a, n), quiesce: () => {} });

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-io-"));
afterAll(() => rmSync(folder, { recursive: true }));
let file = 0;
const path = (name: string): string => join(folder, `${file++}-${name}`);
const put = (name: string, bytes: Uint8Array | string): string => {
  const p = path(name);
  writeFileSync(p, bytes);
  return p;
};

const made: MxArray[] = [];
const openFiles = (): number => (existsSync("/proc/self/fd") ? readdirSync("/proc/self/fd").length : 0);
let filesBefore = 0;
beforeEach(() => {
  filesBefore = openFiles();
});
afterEach(() => {
  for (const a of made.splice(0)) a.dispose();
  expect(memory.counters.active, "arrays left over").toBe(0);
  expect(openFiles(), "files left open").toBe(filesBefore);
});
const keep = <T extends MxArray | Record<string, MxArray>>(x: T): T => {
  made.push(...(x instanceof MxArray ? [x] : Object.values(x)));
  return x;
};

/** An array whose bytes are 1, 2, 3, ... (bool: alternating 0 and 1). */
function pattern(shape: number[], dtype: Dtype): MxArray {
  const desc = ArrayDesc.fresh(shape, dtype);
  hostBytes(desc).forEach((_, i, all) => {
    all[i] = dtype.kind === "bool" ? i & 1 : (i + 1) & 255;
  });
  return keep(new MxArray(desc));
}
const bytes = (a: MxArray): number[] => {
  const bits = readBits(a.desc);
  return [...new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength)];
};
const values = (a: MxArray): unknown[] => [...(readBits(a.desc) as Iterable<unknown>)];
const named = (name: string): Dtype => dtypes.find((d) => d.name === name) as Dtype;
/** A transposed view of a matrix. */
function transposed(a: MxArray): MxArray {
  const [r, c] = a.shape as [number, number];
  const view = ArrayDesc.lazy([c, r], a.dtype);
  view.place(a.desc.storage as Storage, [1, c], 0);
  return keep(new MxArray(view));
}

/** A safetensors file from a header (an object, or raw text) and a number of data bytes. */
function safetensors(header: unknown, data = 0, length?: bigint): Buffer {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([prefix, json, Buffer.alloc(data, 7)]);
}
const entry = (dtype: unknown, shape: unknown, data_offsets: unknown): object => ({ dtype, shape, data_offsets });

describe("safetensors", () => {
  test.each(dtypes.map((d) => [d.name, d] as const))("round trip of %s", (_, dtype) => {
    const p = path("a.safetensors");
    const x = pattern([3, 5], dtype);
    saveSafetensors(p, { x, "é empty": pattern([0, 2], dtype), scalar: pattern([], dtype), t: transposed(x) }, { format: "mlx" });
    const [back, metadata] = load(p, null, true);
    keep(back);
    expect(metadata).toEqual({ format: "mlx" });
    expect(Object.fromEntries(Object.entries(back).map(([k, v]) => [k, [v.shape, v.dtype.name]]))).toEqual({
      x: [[3, 5], dtype.name], "é empty": [[0, 2], dtype.name], scalar: [[], dtype.name], t: [[5, 3], dtype.name],
    });
    expect(bytes(back["x"] as MxArray)).toEqual(bytes(x));
    const size = dtype.size;
    const flat = bytes(x);
    const expected = [0, 1, 2, 3, 4].flatMap((c) => [0, 1, 2].flatMap((r) => flat.slice((r * 5 + c) * size, (r * 5 + c + 1) * size)));
    expect(bytes(back["t"] as MxArray)).toEqual(expected);
  });
  test("tensors are aligned to their element size in the file", () => {
    const p = path("a.safetensors");
    saveSafetensors(p, { a: pattern([3], named("uint8")), b: pattern([3], named("bfloat16")), c: pattern([3], named("int64")) });
    for (const e of readSafetensorsHeader(p).entries) expect(e.begin % e.dtype.size).toBe(0);
  });
  test("accepts bytes, unaligned tensors, null metadata, and the name __proto__", () => {
    const buffer = safetensors(`{"__metadata__":null,"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5);
    const back = keep(loadSafetensors(new Uint8Array(buffer)));
    expect(Object.keys(back).sort()).toEqual(["__proto__", "b"]);
    expect(bytes(back["b"] as MxArray)).toEqual([7]);
  });
  test("bool bytes become 0 or 1", () => {
    expect(bytes(keep(loadSafetensors(safetensors({ m: entry("BOOL", [2], [0, 2]) }, 2)))["m"] as MxArray)).toEqual([1, 1]);
  });
  test("reports progress", () => {
    const seen: [number, number][] = [];
    keep(loadSafetensors(safetensors({ a: entry("U8", [2], [0, 2]), b: entry("U8", [4], [2, 6]) }, 6), { onProgress: (done, total) => seen.push([done, total]) }));
    expect(seen).toEqual([[2, 6], [6, 6]]);
  });
  test("reads the golden outputs of the shipped model", () => {
    const p = join(import.meta.dirname, "fixtures/demo-4bit/golden.safetensors");
    const back = keep(loadSafetensors(p));
    const greedy = back["prompt0.greedy"] as MxArray;
    expect([greedy.shape, greedy.dtype.name]).toEqual([[48], "int32"]);
    expect(values(greedy).every((id) => (id as number) >= 0 && (id as number) < 1024)).toBe(true);
  });

  const good = entry("F32", [2], [0, 8]);
  test("eight-bit floats come as their bytes", () => {
    const file = safetensors({ x: entry("F8_E4M3", [3], [0, 3]) }, 3);
    file.fill(0x7e, file.length - 3);
    const a = keep(loadSafetensors(file).x as MxArray);
    expect([String(a.dtype), values(a)]).toEqual(["uint8", [0x7e, 0x7e, 0x7e]]);
  });
  const hostile: [string, Buffer, RegExp][] = [
    ["empty file", Buffer.alloc(0), /at least 8 bytes, got 0/],
    ["seven bytes", Buffer.alloc(7), /at least 8 bytes, got 7/],
    ["header longer than the file", safetensors({ x: good }, 8, 10_000n), /header is longer than the file, got a header of 10000 bytes in a file of 70/],
    ["header of 2^63 bytes", safetensors({}, 0, 2n ** 63n), /header is longer than the file, got a header of 9223372036854775808 bytes/],
    ["not JSON", safetensors("{nope"), /header is not valid JSON/],
    ["not UTF-8", safetensors("").fill(0), /header is not valid JSON/],
    ["invalid UTF-8 in a name", Buffer.concat([Buffer.from([5, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])]), /header is not valid JSON/],
    ["a list", safetensors([]), /must be a JSON object, got \[\]/],
    ["a number", safetensors("3"), /must be a JSON object, got 3/],
    ["entry not an object", safetensors({ x: 5 }), /tensor "x" must be described by an object, got 5/],
    ["entry null", safetensors({ x: null }), /tensor "x" must be described by an object, got null/],
    ["truncated data", safetensors({ x: good }, 7), /tensor "x" lies outside the file's 7 bytes of data, got data_offsets \[0,8\]/],
    ["bytes behind the data", safetensors({ x: good }, 9), /1 bytes at the end belong to no tensor/],
    ["data without tensors", safetensors({}, 4), /4 bytes at the end belong to no tensor/],
    ["overlap", safetensors({ a: good, b: entry("F32", [2], [4, 12]) }, 12), /tensors "a" and "b" overlap/],
    ["the same bytes twice", safetensors({ a: good, b: good }, 8), /tensors "a" and "b" overlap/],
    ["hole at the start", safetensors({ a: entry("F32", [1], [4, 8]) }, 8), /hole of 4 bytes before tensor "a"/],
    ["hole in the middle", safetensors({ a: entry("U8", [1], [0, 1]), b: entry("U8", [1], [3, 4]) }, 4), /hole of 2 bytes before tensor "b"/],
    ["begin after end", safetensors({ a: entry("U8", [0], [4, 0]) }, 4), /lies outside/],
    ["negative offset", safetensors({ a: entry("U8", [1], [-1, 0]) }, 1), /needs data_offsets, two non-negative integers, got \[-1,0\]/],
    ["fractional offset", safetensors({ a: entry("U8", [1], [0.5, 1.5]) }, 2), /non-negative integers, got \[0.5,1.5\]/],
    ["offsets of 2^60", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1152921504606846976,1152921504606846977]}}`, 1), /lies outside/],
    ["one offset", safetensors({ a: entry("U8", [1], [0]) }, 1), /needs data_offsets/],
    ["offsets as text", safetensors({ a: entry("U8", [1], ["0", "1"]) }, 1), /needs data_offsets/],
    ["no offsets", safetensors({ a: { dtype: "U8", shape: [1] } }, 1), /needs data_offsets/],
    ["dimension of 2^60", safetensors(`{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1]}}`, 1), /dimension that is not an integer from 0 to 2147483647/],
    ["product of 2^60", safetensors({ a: entry("F64", [2 ** 30, 2 ** 30], [0, 8]) }, 8), /too large to exist/],
    ["product wraps to 0 in 64 bits", safetensors({ a: entry("F32", [2 ** 30, 2 ** 30, 16], [0, 0]) }), /too large to exist/],
    ["negative dimension", safetensors({ a: entry("U8", [-1, -1], [0, 1]) }, 1), /not an integer from 0/],
    ["fractional dimension", safetensors({ a: entry("U8", [1.5], [0, 1]) }, 1), /not an integer from 0/],
    ["dimension 1e999", safetensors(`{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}}`, 1), /not an integer from 0/],
    ["shape not a list", safetensors({ a: entry("U8", 1, [0, 1]) }, 1), /needs a shape, a list of integers, got 1/],
    ["shape and bytes differ", safetensors({ a: entry("F32", [3], [0, 8]) }, 8), /shape \(3\) and dtype F32 needs 12 bytes, got data_offsets \[0,8\] \(8 bytes\)/],
    ["unknown dtype", safetensors({ a: entry("F4", [1], [0, 1]) }, 1), /unsupported dtype, got "F4"; supported: BOOL U8 .* C64/],
    ["dtype of the object's prototype", safetensors({ a: entry("constructor", [1], [0, 1]) }, 1), /unsupported dtype, got "constructor"/],
    ["dtype missing", safetensors({ a: { shape: [1], data_offsets: [0, 1] } }, 1), /unsupported dtype, got undefined/],
    ["duplicate tensor", safetensors(`{"a":${JSON.stringify(good)},"a":${JSON.stringify(good)}}`, 8), /has the key "a" twice/],
    ["duplicate tensor, spelled differently", safetensors(`{"a":${JSON.stringify(good)},"\\u0061":${JSON.stringify(good)}}`, 8), /has the key "a" twice/],
    ["duplicate field", safetensors(`{"a":{"dtype":"U8","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), /has the key "dtype" twice/],
    ["metadata not strings", safetensors({ __metadata__: { n: 3 } }), /must hold strings only, got 3 for "n"/],
    ["metadata a list", safetensors({ __metadata__: [] }), /__metadata__ must be an object of strings/],
  ];
  test.each(hostile)("hostile: %s", (_, data, message) => {
    const p = put("bad.safetensors", data);
    let error: Error | undefined;
    try {
      keep(loadSafetensors(p));
    } catch (e) {
      error = e as Error;
    }
    expect(error?.name).toBe("MxError");
    expect(error?.message).toMatch(message);
    expect(error?.message.startsWith(`[load] ${p}: `)).toBe(true);
  });
  test("a good tensor beside a bad one leaves nothing behind", () => {
    expect(() => loadSafetensors(safetensors({ a: good, b: entry("F32", [2], [8, 17]) }, 16))).toThrow(/tensor "b"/);
    expect(memory.counters.active).toBe(0);
  });
  test("every truncation of a good file is an error", () => {
    const whole = safetensors({ a: good, b: entry("I16", [1], [8, 10]) }, 10);
    for (let n = 0; n < whole.length; n++) expect(() => loadSafetensors(whole.subarray(0, n)), `${n} bytes`).toThrow(/^\[load\] \(bytes\): /);
    expect(Object.keys(keep(loadSafetensors(whole)))).toEqual(["a", "b"]);
  });
  test("random damage gives an error or arrays, never anything else", () => {
    const whole = safetensors({ a: good, b: entry("I16", [1], [8, 10]), __metadata__: { k: "v" } }, 10);
    let state = 12345;
    const random = (n: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return state % n;
    };
    for (let i = 0; i < 2000; i++) {
      const damaged = Buffer.from(whole);
      for (let k = 0; k <= random(3); k++) damaged[random(damaged.length)] = random(256);
      try {
        for (const a of Object.values(loadSafetensors(damaged))) a.dispose();
      } catch (error) {
        expect((error as Error).name, (error as Error).stack ?? "").toBe("MxError");
      }
    }
  });
  test("what does not fit memory says the sizes and leaves nothing", () => {
    const before = memory.setLimit(1 << 20);
    const p = put("big.safetensors", safetensors({ a: entry("U8", [600_000], [0, 600_000]), b: entry("U8", [600_000], [600_000, 1_200_000]) }, 1_200_000));
    try {
      expect(() => loadSafetensors(p)).toThrow(/its 2 arrays need 1\.1 MiB: \[memory\] out of memory: .* 1\.0 MiB allowed/);
    } finally {
      memory.setLimit(before);
    }
    expect(Object.keys(keep(loadSafetensors(p)))).toEqual(["a", "b"]);
  });
  test("missing file, folder, unknown extension", () => {
    expect(() => load(join(folder, "none.safetensors"))).toThrow(/^\[load\] .*none\.safetensors: can not open it: no such file$/);
    mkdirSync(join(folder, "dir.safetensors"));
    expect(() => load(join(folder, "dir.safetensors"))).toThrow(/it is a folder, not a file/);
    expect(() => load(join(folder, "x.bin"))).toThrow(/unknown format, got "bin"; supported: npy, npz, safetensors, gguf/);
    expect(() => load(join(folder, "x"))).toThrow(/give the format/);
    expect(() => load(new Uint8Array(4))).toThrow(/give the format/);
    expect(() => load(join(folder, "x.npy"), "toString")).toThrow(/unknown format/);
    expect(() => load(join(folder, "x.npy"), null, true)).toThrow(/only safetensors and gguf files have metadata, got npy/);
  });
  test("a failed save leaves neither the file nor a temporary one, and an old file as it was", () => {
    const sub = join(folder, "sub");
    mkdirSync(sub);
    const p = join(sub, "a.safetensors");
    saveSafetensors(p, { a: pattern([2], named("uint8")) });
    const old = readFileSync(p);
    const gone = pattern([2], named("uint8"));
    const orphan = { a: pattern([4], named("uint8")), b: gone };
    gone.dispose();
    expect(() => saveSafetensors(p, orphan)).toThrow(/disposed/);
    expect(() => saveSafetensors(p, { a: 3 as unknown as MxArray })).toThrow(/^\[saveSafetensors\] "a" must be an array, got number$/);
    expect(() => saveSafetensors(p, {}, { n: 1 as unknown as string })).toThrow(/metadata must be strings, got 1 for "n"/);
    expect(() => saveSafetensors(p, { __metadata__: pattern([1], named("uint8")) })).toThrow(/can not have the name/);
    expect(() => saveSafetensors(join(sub, "none", "b.safetensors"), {})).toThrow(/can not write it/);
    expect(readdirSync(sub)).toEqual(["a.safetensors"]);
    expect(readFileSync(p).equals(old)).toBe(true);
  });
  test("duplicateKey looks at keys only", () => {
    expect(duplicateKey('{"a":"a","b":["a","a",{"a":1}],"c":{"a":"\\"a\\":"}}')).toBeUndefined();
    expect(duplicateKey('{"a":{"x":1,"y":{"x":2,"x":3}}}')).toBe("x");
  });
});

describe("shards", () => {
  const shard = (names: string[]): Buffer => safetensors(Object.fromEntries(names.map((n, i) => [n, entry("U8", [1], [i, i + 1])])), names.length);
  const index = (map: unknown, files: Record<string, Buffer> = { "s1.safetensors": shard(["a", "b"]), "s2.safetensors": shard(["c", "extra"]) }): string => {
    const dir = mkdtempSync(join(folder, "shards-"));
    for (const [name, data] of Object.entries(files)) writeFileSync(join(dir, name), data);
    const p = join(dir, "model.safetensors.index.json");
    writeFileSync(p, JSON.stringify({ metadata: {}, weight_map: map }));
    return p;
  };
  const map = { a: "s1.safetensors", b: "s1.safetensors", c: "s2.safetensors" };
  test("loads the weights of the index", () => {
    expect(Object.keys(keep(loadShards(index(map)))).sort()).toEqual(["a", "b", "c"]);
  });
  test("errors name the weight and the shard", () => {
    expect(() => loadShards(index({ ...map, d: "s2.safetensors" }))).toThrow(/weight "d" is not in its shard s2\.safetensors/);
    expect(() => loadShards(index({ ...map, d: "s3.safetensors" }))).toThrow(/s3\.safetensors: can not open it: no such file/);
    expect(() => loadShards(index({ a: "../s1.safetensors" }))).toThrow(/needs a plain file name, got "\.\.\/s1\.safetensors"/);
    expect(() => loadShards(index({ a: "/etc/passwd" }))).toThrow(/needs a plain file name/);
    expect(() => loadShards(index({ a: 3 }))).toThrow(/needs a plain file name, got 3/);
    expect(() => loadShards(index([]))).toThrow(/needs a weight_map/);
    expect(() => loadShards(index(map, { "s1.safetensors": shard(["a", "b"]), "s2.safetensors": shard(["c"]).subarray(0, 30) }))).toThrow(/s2\.safetensors: /);
    expect(() => loadShards(put("index.json", "{"))).toThrow(/can not read the index/);
  });
});

/** Made with NumPy 2.4: np.save, np.lib.format.write_array(version=...), np.savez and np.savez_compressed. */
const numpy = {
  fortran: "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAABAQAAAgD8AAIBAAAAAQAAAoEA=",
  bigEndian: "k05VTVBZAQB2AHsnZGVzY3InOiAnPmk0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDIpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAB/////gAAAAMAAAAE",
  bigEndianComplex: "k05VTVBZAQB2AHsnZGVzY3InOiAnPmM4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAo/gAAAQAAAAMBAAADAgAAA",
  version2: "k05VTVBZAgB0AAAAeydkZXNjcic6ICc8ZjQnLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAACAPwAAAEAAAEBAAACAQAAAoEA=",
  version3: "k05VTVBZAwB0AAAAeydkZXNjcic6ICc8ZjgnLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAAAAAAAAAAAAAPA/AAAAAAAAAEAAAAAAAAAIQAAAAAAAABBAAAAAAAAAFEA=",
  savez:
    "UEsDBC0AAAAAAAAAIQBP6QAq//////////8FABQAeC5ucHkBABAAmAAAAAAAAACYAAAAAAAAAJNOVU1QWQEAdgB7J2Rlc2NyJzogJzxmNCcsICdmb3J0cmFuX29yZGVyJzogRmFsc2UsICdzaGFwZSc6ICgyLCAzKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAKAAAAAAAAgD8AAABAAABAQAAAgEAAAKBAUEsDBC0AAAAAAAAAIQAjuPBs//////////8FABQAeS5ucHkBABAAiAAAAAAAAACIAAAAAAAAAJNOVU1QWQEAdgB7J2Rlc2NyJzogJzxpOCcsICdmb3J0cmFuX29yZGVyJzogRmFsc2UsICdzaGFwZSc6ICgpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAKBwAAAAAAAABQSwMELQAAAAAAAAAhAO4Zu13//////////wUAFABtLm5weQEAEACCAAAAAAAAAIIAAAAAAAAAk05VTVBZAQB2AHsnZGVzY3InOiAnfGIxJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoBAFBLAwQtAAAAAAAAACEAF24axv//////////BQAUAGUubnB5AQAQAIAAAAAAAAAAgAAAAAAAAACTTlVNUFkBAHYAeydkZXNjcic6ICc8ZjInLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMCwgNCksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgClBLAQItAy0AAAAAAAAAIQBP6QAqmAAAAJgAAAAFAAAAAAAAAAAAAACAAQAAAAB4Lm5weVBLAQItAy0AAAAAAAAAIQAjuPBsiAAAAIgAAAAFAAAAAAAAAAAAAACAAc8AAAB5Lm5weVBLAQItAy0AAAAAAAAAIQDuGbtdggAAAIIAAAAFAAAAAAAAAAAAAACAAY4BAABtLm5weVBLAQItAy0AAAAAAAAAIQAXbhrGgAAAAIAAAAAFAAAAAAAAAAAAAACAAUcCAABlLm5weVBLBQYAAAAABAAEAMwAAAD+AgAAAAA=",
  savezCompressed:
    "UEsDBC0AAAAIAAAAIQDzZqVI//////////8FABQAeC5ucHkBABAA4AAAAAAAAABXAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GhY6CsaaOgq1CmQDLgYwaLAHEg5ABMQNQLzAgVriAFBLAwQtAAAACAAAACEAjo09nf//////////BQAUAHkubnB5AQAQAIQAAAAAAAAASAAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBuU2qkrqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RpGOpo6CrUKFAAuRgYmBgBQSwECLQMtAAAACAAAACEA82alSFcAAADgAAAABQAAAAAAAAAAAAAAgAEAAAAAeC5ucHlQSwECLQMtAAAACAAAACEAjo09nUgAAACEAAAABQAAAAAAAAAAAAAAgAGOAAAAeS5ucHlQSwUGAAAAAAIAAgBmAAAADQEAAAAA",
};
const decode = (text: string): Buffer => Buffer.from(text, "base64");
/** An npy file (version 1) from header text and data. */
function npy(header: string, data: Uint8Array | number = 0): Buffer {
  const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  return Buffer.concat([start, Buffer.from(header), typeof data === "number" ? Buffer.alloc(data) : data]);
}

describe("npy", () => {
  test.each(dtypes.map((d) => [d.name, d] as const))("round trip of %s", (_, dtype) => {
    for (const shape of [[], [5], [2, 3], [0, 4], [1, 1, 1, 2]]) {
      const x = pattern(shape, dtype);
      const p = path("x.npy") as `${string}.npy`;
      save(p, x);
      const back = keep(load(p));
      expect([back.shape, back.dtype, bytes(back)]).toEqual([shape, dtype, bytes(x)]);
    }
  });
  test("a transposed view is saved row by row", () => {
    const p = path("x.npy") as `${string}.npy`;
    save(p, transposed(pattern([2, 3], named("uint8"))));
    expect([keep(load(p)).shape, bytes(keep(load(p)))]).toEqual([[3, 2], [1, 4, 2, 5, 3, 6]]);
  });
  test("the header is NumPy's, bfloat16 is <V2, the data is aligned to 64", () => {
    const p = path("x");
    save(p, pattern([3], named("bfloat16")));
    const text = readFileSync(`${p}.npy`).toString("latin1");
    expect(text.slice(0, 10)).toBe("\x93NUMPY\x01\x00v\x00");
    expect(text.slice(10, 127).trim()).toBe("{'descr': '<V2', 'fortran_order': False, 'shape': (3,), }");
    expect([text[127], text.length]).toEqual(["\n", 134]);
  });
  test("files of NumPy", () => {
    const from = (text: string): MxArray => keep(load(decode(text), "npy"));
    const rows = [0, 1, 2, 3, 4, 5];
    const fortran = from(numpy.fortran);
    expect([fortran.shape, fortran.desc.contiguous, values(fortran)]).toEqual([[2, 3], false, rows]);
    expect(values(from(numpy.bigEndian))).toEqual([1, -2, 3, 4]);
    expect(values(from(numpy.bigEndianComplex))).toEqual([1, 2, -3, -4]);
    expect(values(from(numpy.version2))).toEqual(rows);
    expect([from(numpy.version3).dtype.name, values(from(numpy.version3))]).toEqual(["float64", rows]);
  });
  test("reads |V2 as bfloat16", () => {
    const a = keep(load(npy("{'descr': '|V2', 'fortran_order': False, 'shape': (2,)}", new Uint8Array([0x80, 0x3f, 0x00, 0xc0])), "npy"));
    expect(values(a).map((bits) => fromBfloat16Bits(bits as number))).toEqual([1, -2]);
  });
  const head = (descr: string, shape: string): string => `{'descr': ${descr}, 'fortran_order': False, 'shape': ${shape}, }\n`;
  const hostile: [string, Buffer, RegExp][] = [
    ["empty", Buffer.alloc(0), /at least 10 bytes, got 0/],
    ["wrong magic", Buffer.alloc(20), /not an npy file/],
    ["version 9", Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 9, 0, 0, 0]), /versions 1 to 3 are supported, got 9\.0/],
    ["version 2, cut off", Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 2, 0, 0, 0]), /header is cut off/],
    ["header longer than the file", npy("").fill(255, 8), /header is longer than the file, got a header of 65535 bytes/],
    ["no header", npy(""), /needs descr, fortran_order and shape/],
    ["structured", npy(head("[('a', '<f4')]", "(1,)"), 4), /structured dtypes are not supported/],
    ["text", npy(head("'<U5'", "(1,)"), 20), /unsupported dtype, got "<U5"; supported: b1 u1/],
    ["Python objects", npy(head("'|O'", "(1,)"), 20), /unsupported dtype, got "\|O"/],
    ["complex128", npy(head("'<c16'", "(1,)"), 16), /unsupported dtype, got "<c16"/],
    ["negative dimension", npy(head("'<f4'", "(-1,)"), 4), /needs descr, fortran_order and shape/],
    ["dimension of 2^60", npy(head("'<f4'", "(1152921504606846976,)"), 4), /not an integer from 0/],
    ["product of 2^60", npy(head("'<f4'", "(1073741824, 1073741824)"), 4), /too large to exist/],
    ["data cut off", npy(head("'<f4'", "(4,)"), 15), /array of 16 bytes does not fit, got 15 bytes/],
  ];
  test.each(hostile)("hostile: %s", (_, data, message) => {
    const p = put("bad.npy", data);
    expect(() => load(p, "npy")).toThrow(message);
    expect(() => load(p, "npy")).toThrow(`[load] ${p}: `);
  });
  test("save says what is not an array", () => {
    expect(() => save(path("x.npy"), 3 as unknown as MxArray)).toThrow(/^\[save\] the second argument must be an array, got number$/);
  });
});

describe("npz", () => {
  test("round trip, stored and deflated, with names and without", () => {
    for (const write of [savez, savezCompressed]) {
      const p = path("x.npz");
      const x = pattern([300, 7], named("bfloat16"));
      write(p, pattern([2], named("int8")), { x, "a/b": pattern([], named("float32")), t: transposed(pattern([2, 2], named("uint8"))) });
      const back = keep(load(p));
      expect(Object.keys(back)).toEqual(["arr_0", "x", "a/b", "t"]);
      expect([back["x"]?.shape, back["x"]?.dtype.name, bytes(back["x"] as MxArray)]).toEqual([[300, 7], "bfloat16", bytes(x)]);
      expect(bytes(back["t"] as MxArray)).toEqual([1, 3, 2, 4]);
    }
  });
  test("equal arrays give equal files", () => {
    const x = pattern([4], named("float32"));
    const [a, b] = [path("a.npz"), path("b.npz")];
    savez(a, { x });
    savez(b, { x });
    expect(readFileSync(a).equals(readFileSync(b))).toBe(true);
  });
  test("files of NumPy", () => {
    const a = keep(load(decode(numpy.savez), "npz"));
    const list = Object.entries(a).map(([k, v]) => [k, v.shape, v.dtype.name, values(v)]);
    expect(list).toEqual([["x", [2, 3], "float32", [0, 1, 2, 3, 4, 5]], ["y", [], "int64", [7n]], ["m", [2], "bool", [1, 0]], ["e", [0, 4], "float16", []]]);
    const c = keep(load(decode(numpy.savezCompressed), "npz"));
    expect([c["x"]?.shape, values(c["y"] as MxArray)]).toEqual([[8, 3], [1, 2]]);
    expect(values(c["x"] as MxArray)).toEqual([0, 1, 2, 3].flatMap(() => [0, 1, 2, 3, 4, 5]));
  });
  test("every truncation, and damage to every byte, is an error or leaves the arrays right", () => {
    for (const text of [numpy.savez, numpy.savezCompressed]) {
      const whole = decode(text);
      for (let n = 0; n < whole.length; n++) expect(() => load(whole.subarray(0, n), "npz"), `${n} bytes`).toThrow(/^\[load\] \(bytes\)/);
      for (let i = 0; i < whole.length; i++) {
        const damaged = Buffer.from(whole);
        damaged[i] = (damaged[i] as number) ^ 0x55;
        try {
          for (const a of Object.values(load(damaged, "npz"))) a.dispose();
        } catch (error) {
          expect((error as Error).name, (error as Error).stack ?? "").toBe("MxError");
        }
        expect(memory.counters.active).toBe(0);
      }
    }
  });
  test("damaged data is found by the checksum", () => {
    const damaged = decode(numpy.savez);
    const at = 35 + 20 + 128;
    damaged[at] = (damaged[at] as number) ^ 1;
    expect(() => load(damaged, "npz")).toThrow(/\(bytes\) \(x\.npy\): the data is damaged: its checksum is wrong/);
  });
  test("an entry that unpacks to more than it says is refused", () => {
    const p = path("bomb.npz");
    savezCompressed(p, { x: pattern([100_000], named("uint8")) });
    const bomb = readFileSync(p);
    bomb.writeUInt32LE(100, bomb.length - 22 - (46 + 5) + 24);
    expect(() => load(bomb, "npz")).toThrow(/can not be unpacked/);
  });
  test("savez refuses a name used twice and what is not an array", () => {
    const x = pattern([1], named("uint8"));
    expect(() => savez(path("x.npz"), x, { arr_0: x })).toThrow(/^\[savez\] the name "arr_0" is used twice$/);
    expect(() => savez(path("x.npz"), { a: 1 as unknown as MxArray })).toThrow(/^\[savez\] "a" must be an array, got number$/);
  });
});
