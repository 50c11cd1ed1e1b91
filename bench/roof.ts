/** What the machine can do at most: read and copy bandwidth and multiply-add rate of the library's own worker pool, by kernels that do nothing else. */
import asc from "assemblyscript/asc";
import type { Aval, MxArray, View } from "../src/core/array.ts";
import { float32 } from "../src/core/dtype.ts";
import { defineOp, input, output } from "../src/core/op.ts";
import { noRule } from "../src/core/rules.ts";
import { core as mx } from "../src/index.ts";

const none = noRule("an op of a benchmark");

/** Bytes of one unit of work. */
const chunk = 256 << 10;
/** Bytes that the bandwidth is measured over: more than any cache holds. */
const span = 512 << 20;
const fmaUnits = 64;
const fmaRounds = 20_000;
const accumulators = 8;

const lines = (n: number, f: (i: number) => string): string => Array.from({ length: n }, (_, i) => f(i)).join("\n");
const kernel = (body: string): string => `export function k(a: usize, begin: i32, end: i32): void {
  const src = load<u32>(a); const dst = load<u32>(a, 4);
  for (let u = begin; u < end; u++) {\n${body}\n  }\n}`;

const sources = {
  read: kernel(`    let p: usize = src + <usize>u * ${chunk}; const stop = p + ${chunk};
${lines(8, (i) => `    let s${i} = i32x4.splat(0);`)}
    while (p < stop) {
${lines(8, (i) => `      s${i} = v128.xor(s${i}, v128.load(p, ${16 * i}));`)}
      p += 128;
    }
    s0 = v128.xor(v128.xor(v128.xor(s0, s1), v128.xor(s2, s3)), v128.xor(v128.xor(s4, s5), v128.xor(s6, s7)));
    store<i32>(dst + 4 * u, i32x4.extract_lane(s0, 0));`),
  copy: kernel(`    let p: usize = src + <usize>u * ${chunk}; let q: usize = dst + <usize>u * ${chunk}; const stop = p + ${chunk};
    while (p < stop) {
${lines(8, (i) => `      v128.store(q, v128.load(p, ${16 * i}), ${16 * i});`)}
      p += 128; q += 128;
    }`),
  fma: kernel(`    const x = f32x4.splat(load<f32>(src)); const y = f32x4.splat(load<f32>(src, 4));
${lines(accumulators, (i) => `    let s${i} = f32x4.splat(<f32>${i});`)}
    for (let r = 0; r < ${fmaRounds}; r++) {
${lines(accumulators, (i) => `      s${i} = ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(s${i}, x, y) : f32x4.add(f32x4.mul(s${i}, x), y);`)}
    }
${lines(accumulators - 1, (i) => `    s0 = f32x4.add(s0, s${i + 1});`)}
    store<f32>(dst + 4 * u, f32x4.extract_lane(s0, 0));`),
};

async function compile(source: string, relaxed: boolean): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  const flags = ["-O1", "--noAssert", "--runtime", "stub", "--importMemory", "--sharedMemory", "--initialMemory", "1", "--maximumMemory", "65536"];
  const features = `simd,threads,bulk-memory${relaxed ? ",relaxed-simd" : ""}`;
  const { error, stderr } = await asc.main(["roof.ts", "--outFile", "roof.wasm", "--enable", features, ...flags], {
    readFile: (name: string) => (name === "roof.ts" ? source : null),
    writeFile: (name: string, data: string | Uint8Array) => {
      if (name === "roof.wasm" && typeof data !== "string") bytes = data;
    },
    listFiles: () => [],
  });
  if (error || !bytes) throw new Error(`bench/roof.ts: ${stderr.toString()}`);
  return bytes;
}

/** An op of one generated kernel: units of work over one input. */
function roofOp(name: string, bytes: Uint8Array, units: (x: View) => number, infer: (x: Aval) => Aval): (x: MxArray) => MxArray {
  const apply = defineOp({
    name: `bench ${name}`,
    infer: ([x]) => [infer(x as Aval)],
    reference: () => {
      throw new Error(`bench ${name} has no oracle`);
    },
    vjp: none,
    jvp: none,
    vmap: none,
    kernels: [
      {
        name: `wasm/bench/${name}`,
        launch: ([x]) => ({ steps: [{ entry: { key: `bench ${name}`, bytes: () => bytes }, args: [input(0), output(0)], units: units(x as View), grain: 1 }] }),
      },
    ],
  });
  return (x) => apply([x], {})[0] as MxArray;
}

/** Bytes read by one call of `read`: long enough that the start of the work does not show. */
const part = 32 << 20;

/** The three probes. They are run beside each case, in turns, so that a share of the roof means the roof of that moment. */
export interface Roofs {
  /** Reads `readBytes` bytes that are not in any cache. */
  read(): void;
  readonly readBytes: number;
  /** Copies `copyBytes / 2` bytes. */
  copy(): void;
  readonly copyBytes: number;
  /** `fmaFlops` floating-point operations: a float32 multiply-add counts two. */
  fma(): void;
  readonly fmaFlops: number;
  dispose(): void;
}

export async function openRoofs(): Promise<Roofs> {
  const relaxed = Number(process.versions.node.split(".")[0]) >= 22;
  const units = (x: Aval): number => (x.shape[0] as number) / (chunk / 4);
  const read = roofOp("read", await compile(sources.read, relaxed), units, (x) => ({ shape: [units(x)], dtype: float32 }));
  const copy = roofOp("copy", await compile(sources.copy, relaxed), units, (x) => x);
  const fma = roofOp("fma", await compile(sources.fma, relaxed), () => fmaUnits, () => ({ shape: [fmaUnits], dtype: float32 }));
  const parts: MxArray[] = [];
  for (let i = 0; i < span / part; i++) parts.push(mx.zeros([part / 4]));
  const small = mx.array([0.5, 0.25]);
  mx.eval(parts, small);
  let next = 0;
  const run = (f: (x: MxArray) => MxArray, x: MxArray): void => {
    const y = f(x);
    mx.eval(y);
    y.dispose();
  };
  const turn = (): MxArray => parts[next++ % parts.length] as MxArray;
  return {
    read: () => run(read, turn()),
    readBytes: part,
    copy: () => run(copy, turn()),
    copyBytes: 2 * part,
    fma: () => run(fma, small),
    fmaFlops: fmaUnits * fmaRounds * accumulators * 4 * 2,
    dispose: () => mx.dispose(parts, small),
  };
}
