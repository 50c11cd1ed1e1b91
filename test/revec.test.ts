/** Vector pairing (MLX_WASM_REVEC=1): when it is turned on, and that results keep their bits. */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { hasInt8Dot } from "../src/backend/wasm/features.ts";
import { type PairingOptions, choosePairing } from "../src/backend/wasm/pairing.ts";

const supported = Number(process.versions.node.split(".")[0]) >= 24 && process.arch === "x64";

/** Options of a process that may pair; `flags` collects what was set. */
function options(flags: string[], more: Partial<PairingOptions> = {}): PairingOptions {
  const check = (set: (on: boolean) => void): string[] => {
    set(false);
    set(true);
    return [];
  };
  return { asked: true, node: "24.1.0", arch: "x64", setFlag: (f) => void flags.push(f), check, ...more };
}
const on = "--experimental-wasm-revectorize";
const off = "--no-experimental-wasm-revectorize";

describe("the choice", () => {
  it("leaves V8's flags alone when it is not asked for or not possible", () => {
    for (const [more, reason] of [
      [{ asked: false }, "MLX_WASM_REVEC=1 turns it on"],
      [{ node: "22.9.0" }, "needs Node 24 or newer, this is 22.9.0"],
      [{ arch: "arm64" }, "V8 has it for x64 only, this is arm64"],
    ] as const) {
      const flags: string[] = [];
      expect(choosePairing(options(flags, more))).toEqual({ on: false, reason });
      expect(flags).toEqual([]);
    }
  });
  it("turns it on when kernels agree, and off again when one is wrong or V8 refuses", () => {
    const flags: string[] = [];
    expect(choosePairing(options(flags))).toEqual({ on: true, reason: "MLX_WASM_REVEC=1, its self-test passed" });
    expect(flags.at(-1)).toBe(on);
    const wrong = (set: (pair: boolean) => void): string[] => {
      set(true);
      return ["gemm", "qmm"];
    };
    expect(choosePairing(options(flags, { check: wrong }))).toEqual({ on: false, reason: "closed, its self-test found wrong results: gemm, qmm" });
    expect(flags.at(-1)).toBe(off);
    const refuse = (): void => {
      throw new Error("flags are frozen\nmore");
    };
    expect(choosePairing(options(flags, { setFlag: refuse }))).toEqual({ on: false, reason: "closed, its self-test failed: flags are frozen" });
  });
});

it("knows which processors have the int8 dot product in one instruction", () => {
  expect(hasInt8Dot("x64", "13.6.233", ["avx2", "avx_vnni"])).toBe(true);
  expect(hasInt8Dot("x64", "12.4.254", ["avx2", "avx_vnni"])).toBe(false);
  expect(hasInt8Dot("x64", "13.6.233", ["avx2", "avx512_vnni"])).toBe(false);
  expect(hasInt8Dot("x64", "13.6.233", undefined)).toBe(false);
  expect(hasInt8Dot("arm64", "12.4.254", ["asimd"])).toBe(false);
  expect(hasInt8Dot("arm64", "12.4.254", undefined)).toBe(true);
});

/** Products, generated kernels and their reductions, repeated until V8 has optimized them; prints a digest of the first and the last results. */
const work = `
  import { createHash } from "node:crypto";
  import { core as mx, nn } from "./src/index.ts";
  const key = (i) => mx.random.key(i);
  const [w, s, b] = mx.quantize(mx.random.normal([512, 1024], mx.bfloat16, 0, 1, key(1)), 128, 4);
  const x = mx.random.normal([16, 1024], mx.float32, 0, 1, key(2));
  const y = mx.random.normal([16, 1024], mx.float32, 0, 1, key(3));
  const wide = mx.random.normal([1024, 96], mx.float32, 0, 1, key(4));
  const odd = mx.random.normal([64, 44], mx.float32, 0, 1, key(5));
  mx.eval(w, s, b, x, y, wide, odd);
  const results = (read) => mx.tidy(() => {
    const row = x.index(0);
    const all = [
      mx.quantizedMatmul(row, w, s, b, true, 128, 4), mx.quantizedMatmul(row.astype(mx.bfloat16), w, s, b, true, 128, 4), mx.quantizedMatmul(x, w, s, b, true, 128, 4),
      mx.matmul(x, wide), mx.multiply(nn.silu(x), y), mx.softmax(x, -1), nn.gelu(x), mx.fast.rmsNorm(x, mx.ones([1024]), 1e-5),
      mx.softmax(mx.where(mx.greater(odd, -1), mx.multiply(odd, 0.3), -Infinity), -1), mx.logsumexp(mx.multiply(odd, 3), -1),
    ].map((a) => a.astype(mx.float32));
    mx.eval(...all);
    return read ? all.map((a) => createHash("sha256").update(JSON.stringify(a.tolist())).digest("hex").slice(0, 12)).join() : "";
  });
  const first = results(true);
  for (let i = 0; i < ${supported ? 60 : 1}; i++) results(false);
  const last = results(true);
  console.log(JSON.stringify({ first, last, pairing: mx.systemInfo().pairing }));
  process.exit(0);`;
interface Outcome {
  first: string;
  last: string;
  pairing: string;
}
const child = (revec: "0" | "1"): Outcome =>
  JSON.parse(execFileSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", work], { env: { ...process.env, MLX_WASM_REVEC: revec, DEVICE: "cpu", MLX_THREADS: "2" }, encoding: "utf8" })) as Outcome;

it("keeps the bits of results, or says why it is not on", () => {
  const plain = child("0");
  const paired = child("1");
  expect(plain.pairing).toBe("off (MLX_WASM_REVEC=1 turns it on)");
  if (!supported) expect(paired.pairing).toMatch(/^off \((needs Node 24|V8 has it for x64 only)/);
  else expect(paired.pairing).toBe("on (MLX_WASM_REVEC=1, its self-test passed)");
  expect([plain.last, paired.first, paired.last]).toEqual([plain.first, plain.first, plain.first]);
});
