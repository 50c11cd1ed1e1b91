/**
 * V8's vector pairing (`--experimental-wasm-revectorize`): two neighbouring 128-bit vector instructions become one of 256 bits. An experiment of V8, so it is off by default, and
 * real kernels are compared with and without it before it stays on.
 */
import { setFlagsFromString } from "node:v8";
import { float32 } from "../../core/dtype.ts";
import { env } from "../../core/env.ts";
import { expr as e } from "../../core/expr.ts";
import { emitKernel } from "../../codegen/kernel.ts";
import { lower } from "../../codegen/lower.ts";
import { moduleBytes } from "./modules.ts";

/** First Node whose V8 pairs vectors. */
const firstNode = 24;
const flag = "experimental-wasm-revectorize";

export interface PairingState {
  readonly on: boolean;
  /** Why, in one line. */
  readonly reason: string;
}
export interface PairingOptions {
  readonly asked: boolean;
  readonly node: string;
  readonly arch: string;
  /** Sets a V8 flag; throws when V8 refuses. */
  readonly setFlag: (text: string) => void;
  /** Names of the kernels whose results differ; `set` turns pairing on or off in between. */
  readonly check: (set: (on: boolean) => void) => string[];
}

/** Turns pairing on when it is asked for, possible, and passes the check. */
export function choosePairing({ asked, node, arch, setFlag, check }: PairingOptions): PairingState {
  if (!asked) return { on: false, reason: "MLX_WASM_REVEC=1 turns it on" };
  if (Number(node.split(".")[0]) < firstNode) return { on: false, reason: `needs Node ${firstNode} or newer, this is ${node}` };
  if (arch !== "x64") return { on: false, reason: `V8 has it for x64 only, this is ${arch}` };
  const set = (on: boolean): void => setFlag(`--${on ? "" : "no-"}${flag}`);
  let why: string;
  try {
    const wrong = check(set);
    if (wrong.length === 0) {
      set(true);
      return { on: true, reason: "MLX_WASM_REVEC=1, its self-test passed" };
    }
    why = `its self-test found wrong results: ${wrong.join(", ")}`;
  } catch (error) {
    why = `its self-test failed: ${(error as Error).message.split("\n", 1)[0]}`;
  }
  try {
    set(false);
  } catch {
    // V8 that does not take the flag has not set it either.
  }
  return { on: false, reason: `closed, ${why}` };
}

/** State of this process; decided once, before the first kernel is compiled. */
export function openPairing(relaxed: boolean): PairingState {
  return choosePairing({
    asked: env("MLX_WASM_REVEC"), node: process.versions.node, arch: process.arch, setFlag: setFlagsFromString,
    check: (set) => {
      const results = [false, true].map((on) => {
        set(on);
        // Optimized at the first call: the baseline compiler does not pair.
        setFlagsFromString("--no-liftoff");
        try {
          return runKernels(relaxed, on);
        } finally {
          setFlagsFromString("--liftoff");
        }
      });
      const [want, got] = results as [Map<string, Uint8Array>, Map<string, Uint8Array>];
      return [...want].filter(([name, bytes]) => Buffer.compare(bytes, got.get(name) as Uint8Array) !== 0).map(([name]) => name);
    },
  });
}

type Kernel = (a: number, begin: number, end: number) => void;
const pageBytes = 65536;
const scratchBytes = 1 << 18;

/** A small memory of its own with the kernels to check, and random operands. */
class Stand {
  private readonly memory = new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true });
  private top = pageBytes + scratchBytes;
  private seed = 1;
  private readonly tag: number;
  constructor(tag: number) {
    this.tag = tag;
  }
  kernels(bytes: Uint8Array): Record<string, Kernel> {
    // A section without meaning: V8 would share the code of equal modules, whatever the flags were.
    const tagged = new Uint8Array([...bytes, 0, 2, 1, 97 + this.tag]);
    const scratch = new WebAssembly.Global({ value: "i32" }, pageBytes);
    return new WebAssembly.Instance(new WebAssembly.Module(tagged), { env: { memory: this.memory, scratch } }).exports as Record<string, Kernel>;
  }
  alloc(bytes: number): number {
    const at = this.top;
    this.top = (at + bytes + 127) & ~127;
    return at;
  }
  bytes(at: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, n);
  }
  words(values: readonly number[]): number {
    const at = this.alloc(4 * values.length);
    new Int32Array(this.memory.buffer, at, values.length).set(values);
    return at;
  }
  private random(): number {
    this.seed = (Math.imul(this.seed, 1664525) + 1013904223) >>> 0;
    return this.seed / 2 ** 32;
  }
  randomBytes(n: number): number {
    const at = this.alloc(n);
    const to = this.bytes(at, n);
    for (let i = 0; i < n; i++) to[i] = this.random() * 256;
    return at;
  }
  randomFloats(n: number): number {
    const at = this.alloc(4 * n);
    const to = new Float32Array(this.memory.buffer, at, n);
    for (let i = 0; i < n; i++) to[i] = 4 * this.random() - 2;
    return at;
  }
}
/** Random bfloat16 numbers near 1. */
function randomTerms(stand: Stand, n: number): number {
  const at = stand.randomBytes(2 * n);
  const high = stand.bytes(at, 2 * n);
  for (let i = 1; i < 2 * n; i += 2) high[i] = 63;
  return at;
}
const floatBits = (x: number): number => new Int32Array(new Float32Array([x]).buffer)[0] as number;
const float32Code = float32.code;

/** Results of the kernels that pairing changes most. Argument words as in assembly/templates. */
function runKernels(relaxed: boolean, on: boolean): Map<string, Uint8Array> {
  const stand = new Stand(Number(on));
  return new Map([...quantizedResults(stand, relaxed), ...gemmResults(stand, relaxed), generatedResult(stand)]);
}

function quantizedResults(stand: Stand, relaxed: boolean): [string, Uint8Array][] {
  const q = stand.kernels(moduleBytes("quantized", relaxed));
  const [M, N, K, group, planes] = [8, 24, 512, 128, 3];
  const [w, x, out] = [stand.randomBytes((N * K) / 2), stand.randomFloats(M * K), stand.alloc(4 * M * N)];
  const terms = stand.randomFloats((2 * N * K) / group);
  const prepared = stand.alloc(M * (4 * K + 8 * (K / group) + 64));
  const common = (rows: number, code: number): number[] => [w, terms, terms + (4 * N * K) / group, x, prepared, out, rows, N, K, group, 4, planes, float32Code, code, float32Code];
  const results: [string, Uint8Array][] = [];
  const keep = (name: string, rows: number): unknown => results.push([name, stand.bytes(out, 4 * rows * N).slice()]);
  const run = (name: string, words: readonly number[], units: number): void => (q[name] as Kernel)(stand.words(words), 0, units);
  run("prepare", [x, prepared, 1, K, group, float32Code, 4, planes], 1);
  const terms16 = randomTerms(stand, (N * K) / group);
  for (const name of ["qmvPair16", "qmvPair32"]) {
    stand.bytes(out, 4 * N).fill(0);
    run(name, common(1, 12).map((word, i) => (i === 1 || i === 2 ? terms16 : word)), N / 4);
    keep(name, 1);
  }
  run("prepareTiles", [x, prepared, M, K, group, float32Code, 1, planes], M / 4);
  for (const narrow of [0, 1]) {
    run("qmm", [...common(M, float32Code), M, narrow], N / 8);
    keep(`qmm${narrow ? "16" : ""}`, M);
  }
  return results;
}

function gemmResults(stand: Stand, relaxed: boolean): [string, Uint8Array][] {
  const g = stand.kernels(moduleBytes("gemm", relaxed));
  const [M, N, K] = [36, 48, 64];
  const [a, b, packed, out] = [stand.randomFloats(M * K), stand.randomFloats(K * N), stand.alloc(4 * M * K), stand.alloc(4 * M * N)];
  (g["pack"] as Kernel)(stand.words([a, packed, float32Code, M, K, K, 1, M / 12, 0, 0, 1, 0]), 0, M / 12);
  const words = [packed, b, out, 0, float32Code, M, N, K, 0, M, N, N, 1, floatBits(1), 0, 0, 0, 0, 0, 0, 1, M * N, 26, 256, N, 0, 0];
  (g["gemm"] as Kernel)(stand.words(words), 0, 1);
  return [["gemm", stand.bytes(out, 4 * M * N).slice()]];
}

/** exp(x) * y by a generated kernel. */
function generatedResult(stand: Stand): [string, Uint8Array] {
  const value = e.mul(e.math("exp", e.input(0, float32)), e.input(1, float32));
  const bytes = emitKernel({ outputs: lower([{ dtype: float32, value }]), access: ["unit", "unit"], inputBytes: [4, 4], outer: 0 });
  const n = 256;
  const [x, y, out] = [stand.randomFloats(n), stand.randomFloats(n), stand.alloc(4 * n)];
  (stand.kernels(bytes)["k"] as Kernel)(stand.words([x, y, out, n, n]), 0, 1);
  return ["generated kernel", stand.bytes(out, 4 * n).slice()];
}
