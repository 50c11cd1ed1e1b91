/**
 * Source of the sort kernels, one per element width. Elements become unsigned keys whose order is the order of the values (NaN last),
 * then short lines take an insertion sort and others a least-significant-digit radix sort with 8-bit digits. Both are stable.
 */
import { scratchDeclaration } from "./elements.ts";

type Width = 8 | 16 | 32 | 64;
const bytesOf = (w: Width): number => w / 8;

/** Key of an element and back. `mode` 0: unsigned, 1: signed, 2: float; -0 and +0 get one key when `zeros` is set (ties by index). */
function keys(w: Width): string {
  const u = `u${w}`;
  const top = w === 64 ? "0x8000000000000000" : `0x${(2 ** (w - 1)).toString(16)}`;
  const all = `<${u}>-1`;
  const magnitude = `<${u}>(x << 1)`;
  return `// @ts-ignore: decorator
@inline function key${w}(x: ${u}, mode: i32, inf: ${u}, zeros: bool): ${u} {
  if (mode == 0) return x;
  if (mode == 1) return x ^ <${u}>${top};
  if (${magnitude} > <${u}>(inf << 1)) return ${all};
  if (zeros && ${magnitude} == 0) return <${u}>${top};
  return x & <${u}>${top} ? ~x : x | <${u}>${top};
}
// @ts-ignore: decorator
@inline function value${w}(k: ${u}, mode: i32, inf: ${u}): ${u} {
  if (mode == 0) return k;
  if (mode == 1) return k ^ <${u}>${top};
  // One key stands for all NaN; it becomes the quiet NaN: infinity and the highest bit of the fraction.
  if (k == ${all}) return inf | (inf & (0 - inf)) >> 1;
  return k & <${u}>${top} ? k ^ <${u}>${top} : ~k;
}
`;
}

/** Entries are keys, or for argsort pairs of key and index. */
function kernel(w: Width, indices: boolean): string {
  const u = `u${w}`;
  const b = bytesOf(w);
  // A pair is padded so that its key and index are aligned.
  const e = indices ? (w === 64 ? 16 : 8) : b;
  const at = e - 4;
  const name = `${indices ? "argsort" : "sort"}_${w}`;
  const move = (to: string, from: string): string =>
    indices ? (w === 64 ? `v128.store(${to}, v128.load(${from}));` : `store<u64>(${to}, load<u64>(${from}));`) : `store<${u}>(${to}, load<${u}>(${from}));`;
  const outBytes = indices ? 4 : b;
  return `// words: src, dst, n, mode (0 unsigned, 1 signed, 2 float), infinity's bits (two words), work area (0: this thread's scratch), bytes of it per row; unit: one row
export function ${name}(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), mode = load<i32>(a, 12);
  const inf = <${u}>load<u64>(a, 16);
  const area = load<usize>(a, 24), areaBytes = load<usize>(a, 28);
  const bytes = <usize>n * ${e};
  for (let r = begin; r < end; r++) {
    const p = src + <usize>r * <usize>n * ${b};
    const counts = SCRATCH;
    let x = area ? area + <usize>r * areaBytes : SCRATCH + ${1024 * b};
    let y = x + ((bytes + 15) & ~15);
    for (let i = 0; i < n; i++) {
      const q = x + <usize>i * ${e};
      store<${u}>(q, key${w}(load<${u}>(p + <usize>i * ${b}), mode, inf, ${indices}));
${indices ? `      store<u32>(q, <u32>i, ${at});\n` : ""}    }
    if (n <= 48) insertion_${name}(x, n);
    else {
      memory.fill(counts, 0, ${1024 * b});
      for (let q = x, stop = x + bytes; q < stop; q += ${e}) {
        const k = load<${u}>(q);
${Array.from({ length: b }, (_, d) => `        { const c = counts + ${1024 * d} + (<usize>(k >> ${8 * d} & 255) << 2); store<u32>(c, load<u32>(c) + 1); }`).join("\n")}
      }
${Array.from({ length: b }, (_, d) => `      if (load<u32>(counts + ${1024 * d} + (<usize>(load<${u}>(x) >> ${8 * d} & 255) << 2)) != <u32>n) {
        scatter_${name}(x, y, bytes, counts + ${1024 * d}, ${8 * d});
        const t = x;
        x = y;
        y = t;
      }`).join("\n")}
    }
    let out = dst + <usize>r * <usize>n * ${outBytes};
    for (let q = x, stop = x + bytes; q < stop; q += ${e}, out += ${outBytes}) {
      ${indices ? `store<u32>(out, load<u32>(q, ${at}))` : `store<${u}>(out, value${w}(load<${u}>(q), mode, inf))`};
    }
  }
}
/** One pass of the radix sort from x to y by the digit at \`shift\`; counts of that digit become the places of its buckets. */
function scatter_${name}(x: usize, y: usize, bytes: usize, counts: usize, shift: i32): void {
  let place: u32 = 0;
  for (let c = counts, stop = counts + 1024; c < stop; c += 4) {
    const m = load<u32>(c);
    store<u32>(c, place);
    place += m;
  }
  for (let q = x, stop = x + bytes; q < stop; q += ${e}) {
    const c = counts + (<usize>(load<${u}>(q) >> <${u}>shift & 255) << 2);
    const i = load<u32>(c);
    store<u32>(c, i + 1);
    const to = y + <usize>i * ${e};
    ${move("to", "q")}
  }
}
function insertion_${name}(x: usize, n: i32): void {
  for (let i = 1; i < n; i++) {
    let q = x + <usize>i * ${e};
    const k = load<${u}>(q);
${indices ? `    const index = load<u32>(q, ${at});\n` : ""}    while (q > x && load<${u}>(q - ${e}) > k) {
      ${move("q", `q - ${e}`)}
      q -= ${e};
    }
    store<${u}>(q, k);
${indices ? `    store<u32>(q, index, ${at});\n` : ""}  }
}
`;
}

export const source = (): string => [scratchDeclaration, ...([8, 16, 32, 64] as const).flatMap((w) => [keys(w), kernel(w, false), kernel(w, true)])].join("\n");
