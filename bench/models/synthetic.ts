/**
 * Checkpoints of real sizes with random weights, written in the layout of `mlx_lm.convert -q`. Weights repeat with a period that no row length
 * divides, so that writing is fast and no two rows are equal; their scale keeps activations finite.
 */
import { closeSync, existsSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toBfloat16Bits } from "../../src/core/dtype.ts";
import { type Format, type FormatName, type ModelConfig, formats, matrices, norms } from "./configs.ts";

/** Random numbers from 0 up to 1; the same sequence for the same seed (xorshift32, Marsaglia 2003). */
export function randomStream(seed: number): () => number {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

/** Elements before a pattern repeats: a prime, so it divides no row. */
export const period = 262_139;

type Bits = Uint16Array | Uint32Array;
interface Tensor {
  readonly name: string;
  readonly dtype: "U32" | "BF16";
  readonly shape: readonly number[];
  /** One period of elements. */
  readonly pattern: Bits;
}

/** Patterns by kind and scale; made once and written many times. */
class Patterns {
  private readonly made = new Map<string, Bits>();
  private of(key: string, make: () => Bits): Bits {
    const found = this.made.get(key);
    if (found) return found;
    const pattern = make();
    this.made.set(key, pattern);
    return pattern;
  }
  words(): Bits {
    return this.of("words", () => {
      const random = randomStream(1);
      return Uint32Array.from({ length: period }, () => random() * 2 ** 32);
    });
  }
  /** bfloat16 values, uniform with this standard deviation around 0. */
  uniform(deviation: number): Bits {
    return this.of(`uniform ${deviation}`, () => {
      const random = randomStream(2);
      return Uint16Array.from({ length: period }, () => toBfloat16Bits((random() * 2 - 1) * Math.sqrt(3) * deviation));
    });
  }
  /** bfloat16 scales within a quarter of `scale`, times `factor`: the same scales for every factor. */
  scales(scale: number, factor: number): Bits {
    return this.of(`scales ${scale} ${factor}`, () => {
      const random = randomStream(3);
      return Uint16Array.from({ length: period }, () => toBfloat16Bits(scale * (0.75 + random() / 2) * factor));
    });
  }
  ones(): Bits {
    return this.of("ones", () => new Uint16Array(period).fill(toBfloat16Bits(1)));
  }
}

function tensorsOf(config: ModelConfig, format: Format): Tensor[] {
  const patterns = new Patterns();
  const tensors: Tensor[] = [];
  for (const [name, out, columns] of matrices(config)) {
    // A matrix of this deviation keeps the length of a vector it multiplies.
    const deviation = 1 / Math.sqrt(columns);
    if (format.bits === 16) {
      tensors.push({ name: `${name}.weight`, dtype: "BF16", shape: [out, columns], pattern: patterns.uniform(deviation) });
      continue;
    }
    const levels = 2 ** format.bits - 1;
    // Levels are uniform in 0 .. levels: their variance is ((levels + 1)^2 - 1) / 12.
    const scale = deviation * Math.sqrt(12 / ((levels + 1) ** 2 - 1));
    const groups = [out, columns / format.groupSize];
    tensors.push({ name: `${name}.weight`, dtype: "U32", shape: [out, (columns * format.bits) / 32], pattern: patterns.words() });
    tensors.push({ name: `${name}.scales`, dtype: "BF16", shape: groups, pattern: patterns.scales(scale, 1) });
    tensors.push({ name: `${name}.biases`, dtype: "BF16", shape: groups, pattern: patterns.scales(scale, -levels / 2) });
  }
  for (const [name, length] of norms(config)) tensors.push({ name: `${name}.weight`, dtype: "BF16", shape: [length], pattern: patterns.ones() });
  return tensors;
}

/** Writes `length` elements of an endlessly repeated pattern. */
export function writeRepeated(fd: number, pattern: Bits, length: number): void {
  const whole = new Uint8Array(pattern.buffer, pattern.byteOffset, pattern.byteLength);
  for (let left = length * pattern.BYTES_PER_ELEMENT; left > 0; left -= whole.length) writeSync(fd, left < whole.length ? whole.subarray(0, left) : whole);
}

function writeTensors(path: string, tensors: readonly Tensor[]): void {
  let at = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "mlx" } };
  const sizes = tensors.map((t) => t.shape.reduce((n, d) => n * d, 1));
  tensors.forEach((t, i) => {
    const end = at + (sizes[i] as number) * (t.dtype === "U32" ? 4 : 2);
    header[t.name] = { dtype: t.dtype, shape: t.shape, data_offsets: [at, end] };
    at = end;
  });
  const json = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  start.writeBigUInt64LE(BigInt(start.length - 8));
  json.copy(start, 8);
  const fd = openSync(path, "w");
  try {
    writeSync(fd, start);
    tensors.forEach((t, i) => writeRepeated(fd, t.pattern, sizes[i] as number));
  } finally {
    closeSync(fd);
  }
}

/** Folder for files that benchmarks make and use again. */
export function cacheFolder(): string {
  const folder = join(tmpdir(), "mlx-vk-bench");
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Folder of the synthetic checkpoint of a configuration and format; written when it is not there. */
export function syntheticCheckpoint(name: string, config: ModelConfig, formatName: FormatName, folder = cacheFolder()): string {
  const format = formats[formatName];
  const target = join(folder, `${name}-${formatName}`);
  if (existsSync(join(target, "config.json"))) return target;
  mkdirSync(target, { recursive: true });
  // The config comes last and by renaming: a folder with a config is complete.
  writeTensors(join(target, "model.safetensors"), tensorsOf(config, format));
  const quantization = format.bits === 16 ? {} : { quantization: { group_size: format.groupSize, bits: format.bits } };
  writeFileSync(join(target, "config.part"), JSON.stringify({ ...config, ...quantization }, null, 1));
  renameSync(join(target, "config.part"), join(target, "config.json"));
  return target;
}
