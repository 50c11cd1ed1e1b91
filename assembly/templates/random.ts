/** Source of the random kernels: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), laid out as MLX and JAX do. */
import { scratchDeclaration } from "./elements.ts";

const rotations = [[13, 15, 26, 6], [17, 29, 16, 24]] as const;
const streams = [0, 1, 2, 3] as const;

/** Four vectors of counters are hashed side by side, because the rounds of one are a single chain. */
function hash(): string {
  const lines: string[] = [];
  const each = (f: (i: number) => string): void => {
    lines.push(`  ${streams.map(f).join(" ")}`);
  };
  for (let g = 0; g < 5; g++) {
    for (const r of rotations[g % 2] as readonly number[]) {
      each((i) => `x${i} = i32x4.add(x${i}, y${i});`);
      each((i) => `y${i} = v128.xor(v128.or(i32x4.shl(y${i}, ${r}), i32x4.shr_u(y${i}, ${32 - r})), x${i});`);
    }
    lines.push(`  t = i32x4.add(k${(g + 2) % 3}, i32x4.splat(${g + 1}));`);
    each((i) => `x${i} = i32x4.add(x${i}, k${(g + 1) % 3}); y${i} = i32x4.add(y${i}, t);`);
  }
  return lines.join("\n");
}

const kernels = `/** Hashes the counters (i, i + shift) for i = from .. from + 15; the two words of each go to lo and hi at 4 * (i - from). */
function hash16(key0: u32, key1: u32, from: u32, shift: u32, lo: usize, hi: usize): void {
  const k0 = i32x4.splat(<i32>key0), k1 = i32x4.splat(key1), k2 = i32x4.splat(key0 ^ key1 ^ 0x1bd11bda);
  const i = i32x4.add(i32x4.splat(from), i32x4(0, 1, 2, 3));
  let t = i32x4.add(i32x4.splat(shift), k1);
  let x0 = i, x1 = i32x4.add(i, i32x4.splat(4)), x2 = i32x4.add(i, i32x4.splat(8)), x3 = i32x4.add(i, i32x4.splat(12));
${streams.map((i) => `  let y${i} = i32x4.add(x${i}, t);\n  x${i} = i32x4.add(x${i}, k0);`).join("\n")}
${hash()}
${streams.map((i) => `  v128.store(lo, x${i}, ${16 * i});\n  v128.store(hi, y${i}, ${16 * i});`).join("\n")}
}

/** Stores word number i of a key's output, of which only the first \`bytes\` bytes exist. */
function storeWord(out: usize, i: u32, bytes: u32, word: u32): void {
  const at = i << 2;
  if (at + 4 <= bytes) {
    store<u32>(out + at, word);
    return;
  }
  for (let b = at; b < bytes; b++, word >>= 8) store<u8>(out + b, <u8>word);
}

// words: keys (pairs of uint32), dst, bytes per key, counters per unit, units per key; unit: a range of counters of one key.
// With w = ceil(bytes / 4) words and h = floor(w / 2), counter i makes words i and h + (w odd) + i; an odd w has word h from the counter (h, 0).
export function bits(a: usize, begin: i32, end: i32): void {
  const keys = load<usize>(a), dst = load<usize>(a, 4);
  const bytes = load<u32>(a, 8), span = load<u32>(a, 12), parts = max(1, load<i32>(a, 16));
  const words = (bytes + 3) >> 2, half = words >> 1, odd = words & 1;
  for (let u = begin; u < end; u++) {
    const key = u / parts, part = u - key * parts;
    const key0 = load<u32>(keys + (<usize>key << 3)), key1 = load<u32>(keys + (<usize>key << 3), 4);
    const out = dst + <usize>key * bytes;
    const first = <u32>part * span, stop = min(half, first + span);
    const shift = half + odd;
    for (let i = first; i < stop; i += 16) {
      // Only whole groups away from a cut last word are stored directly.
      if (i + 16 <= stop && ((shift + i + 16) << 2) <= bytes) {
        hash16(key0, key1, i, shift, out + (i << 2), out + ((shift + i) << 2));
        continue;
      }
      hash16(key0, key1, i, shift, SCRATCH, SCRATCH + 64);
      for (let j: u32 = 0; j < 16 && i + j < stop; j++) {
        storeWord(out, i + j, bytes, load<u32>(SCRATCH + (j << 2)));
        storeWord(out, shift + i + j, bytes, load<u32>(SCRATCH + 64 + (j << 2)));
      }
    }
    if (odd && part == parts - 1) {
      hash16(key0, key1, half, 0 - half, SCRATCH, SCRATCH + 64);
      storeWord(out, half, bytes, load<u32>(SCRATCH));
    }
  }
}

// words: dst, two key words; unit: the whole key
export function key(a: usize, begin: i32, end: i32): void {
  if (begin >= end) return;
  const dst = load<usize>(a);
  store<u32>(dst, load<u32>(a, 4));
  store<u32>(dst, load<u32>(a, 8), 4);
}
`;

export const source = (): string => scratchDeclaration + kernels;
