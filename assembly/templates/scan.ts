/**
 * Source of the scan kernels: running sum, product, maximum, minimum, log-sum-exp over n of [outer, n, inner].
 * Floats accumulate in float64 and are rounded once per element.
 */
import { type Element, elements, halfImport, scratchDeclaration } from "./elements.ts";

type Id = Element["id"];
type Accumulator = "f64" | "i32" | "u32" | "i64" | "u64";
interface Scan {
  readonly name: string;
  readonly from: Element;
  readonly to: Element;
  readonly acc: Accumulator;
  readonly identity: string;
  readonly step: (acc: string, x: string) => string;
}
const lowest: Readonly<Record<Accumulator, string>> = { f64: "-Infinity", i32: "i32.MIN_VALUE", u32: "0", i64: "i64.MIN_VALUE", u64: "0" };
const highest: Readonly<Record<Accumulator, string>> = { f64: "Infinity", i32: "i32.MAX_VALUE", u32: "u32.MAX_VALUE", i64: "i64.MAX_VALUE", u64: "u64.MAX_VALUE" };
/** Exclusive maxima and minima of short integers start at the ends of their own range. */
const narrow: Partial<Record<Id, readonly [string, string]>> = { i8: ["-128", "127"], u8: ["0", "255"], i16: ["-32768", "32767"], u16: ["0", "65535"] };

function scans(): Scan[] {
  const list: Scan[] = [];
  const accOf = (e: Element): Accumulator => (e.wide === "f32" || e.wide === "f64" ? "f64" : e.wide);
  const add = (op: string, from: Id, to: Id, identity: (acc: Accumulator) => string, step: Scan["step"]): void => {
    const acc = accOf(elements[from]);
    list.push({ name: `${op}_${from}_${to}`, from: elements[from], to: elements[to], acc, identity: identity(acc), step });
  };
  const floats: Id[] = ["f32", "f64", "f16", "bf16"];
  for (const id of ["u8", "u16", "u32", "u64", ...floats] as Id[]) {
    add("cumsum", id, id, () => "0", (a, x) => `${a} + ${x}`);
    add("cumprod", id, id, () => "1", (a, x) => `${a} * ${x}`);
  }
  add("cumsum", "u8", "i32", () => "0", (a, x) => `${a} + ${x}`);
  for (const id of Object.keys(elements) as Id[]) {
    const acc = accOf(elements[id]);
    add("cummax", id, id, () => narrow[id]?.[0] ?? lowest[acc], (a, x) => `max<${acc}>(${a}, ${x})`);
    add("cummin", id, id, () => narrow[id]?.[1] ?? highest[acc], (a, x) => `min<${acc}>(${a}, ${x})`);
  }
  // An exclusive minimum of bool starts with true, which is 1 and not 255.
  list.push({ name: "cummin_bool_bool", from: elements.u8, to: elements.u8, acc: "u32", identity: "1", step: (a, x) => `min<u32>(${a}, ${x})` });
  for (const id of floats) add("logcumsumexp", id, id, () => "-Infinity", (a, x) => `logAddExp(${a}, ${x})`);
  return list;
}

function kernel(k: Scan): string {
  const get = (p: string): string => `<${k.acc}>${k.from.get(p)}`;
  const put = (p: string, v: string): string => k.to.put(p, k.to.wide === k.acc ? v : `<${k.to.wide}>${v}`);
  return `// words: src, dst, n, inner, width, blocks of width in inner, reverse, inclusive; unit: one block of columns (of one line when inner is 1)
export function ${k.name}(a: usize, begin: i32, end: i32): void {
  const src = load<usize>(a), dst = load<usize>(a, 4);
  const n = load<i32>(a, 8), inner = load<i32>(a, 12), width = load<i32>(a, 16), blocks = max(1, load<i32>(a, 20));
  const reverse = load<i32>(a, 24), inclusive = load<i32>(a, 28);
  const first = reverse ? (n - 1) * inner : 0;
  const stepIn = reverse ? -inner * ${k.from.bytes} : inner * ${k.from.bytes};
  const stepOut = reverse ? -inner * ${k.to.bytes} : inner * ${k.to.bytes};
  for (let u = begin; u < end; u++) {
    const o = u / blocks, column = (u - o * blocks) * width;
    const w = min(width, inner - column);
    const start = <usize>o * <usize>n * <usize>inner + <usize>(first + column);
    let p = src + start * ${k.from.bytes}, q = dst + start * ${k.to.bytes};
    if (w == 1) {
      let acc: ${k.acc} = ${k.identity};
      for (let i = 0; i < n; i++, p += stepIn, q += stepOut) {
        const before = acc;
        acc = ${k.step("acc", get("p"))};
        const y = inclusive ? acc : before;
        ${put("q", "y")};
      }
      continue;
    }
    for (let j = 0; j < w; j++) store<${k.acc}>(SCRATCH + (<usize>j << 3), ${k.identity});
    for (let i = 0; i < n; i++, p += stepIn, q += stepOut) {
      let x = p, y = q, s = SCRATCH;
      for (let j = 0; j < w; j++, x += ${k.from.bytes}, y += ${k.to.bytes}, s += 8) {
        const before = load<${k.acc}>(s);
        const acc: ${k.acc} = ${k.step("before", get("x"))};
        store<${k.acc}>(s, acc);
        const z = inclusive ? acc : before;
        ${put("y", "z")};
      }
    }
  }
}
`;
}

const logAddExp = `import { exp1d, log1p1d } from "./lib/exponential";
/** log(exp(x) + exp(y)). */
// @ts-ignore: decorator
@inline function logAddExp(x: f64, y: f64): f64 {
  const high = max<f64>(x, y), low = min<f64>(x, y);
  if (low == -Infinity || high == Infinity) return high;
  return high + log1p1d(exp1d(low - high));
}
`;

export const source = (): string => [halfImport, logAddExp, scratchDeclaration, ...scans().map(kernel)].join("\n");
