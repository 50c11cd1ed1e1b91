/** How kernels that are specialised by dtype load, widen and store elements. Used by the templates of reduce, scan, softmax and sort. */

/** Type that a kernel computes in: 32-bit lanes (four of them) or 64-bit lanes (two). */
export type Wide = "f32" | "i32" | "u32" | "f64" | "i64" | "u64";

export interface Element {
  /** Part of kernel names: the width and kind of the stored type. */
  readonly id: "f32" | "f16" | "bf16" | "f64" | "i8" | "u8" | "i16" | "u16" | "i32" | "u32" | "i64" | "u64";
  /** Bytes of one element. */
  readonly bytes: number;
  readonly wide: Wide;
  /** Vector of `lanesOf(wide)` elements at p + offset. */
  vector(p: string, offset?: number): string;
  /** One element at p, widened. */
  get(p: string): string;
  /** Statement that stores a widened value at p. */
  put(p: string, value: string): string;
}

export const lanesOf = (w: Wide): number => (w.endsWith("64") ? 2 : 4);
export const wideBytes = (w: Wide): number => (w.endsWith("64") ? 8 : 4);
/** Vector namespace of a wide type; unsigned types share the signed one. */
export const shapeOf = (w: Wide): string => ({ f32: "f32x4", f64: "f64x2", i32: "i32x4", u32: "i32x4", i64: "i64x2", u64: "i64x2" })[w];
export const isFloat = (w: Wide): boolean => w.startsWith("f");

const at = (p: string, offset = 0): string => (offset ? `${p}, ${offset}` : p);
const plain = (id: Element["id"], wide: Wide): Element => ({
  id,
  bytes: wideBytes(wide),
  wide,
  vector: (p, o) => `v128.load(${at(p, o)})`,
  get: (p) => `load<${wide}>(${p})`,
  put: (p, v) => `store<${wide}>(${p}, ${v})`,
});
const short = (id: "i16" | "u16", wide: Wide): Element => ({
  id,
  bytes: 2,
  wide,
  vector: (p, o) => `v128.load_ext<${id}>(${at(p, o)})`,
  get: (p) => `<${wide}>load<${id}>(${p})`,
  put: (p, v) => `store<${id}>(${p}, <${id}>(${v}))`,
});
const byte = (id: "i8" | "u8", wide: Wide): Element => {
  const s = id === "i8" ? "s" : "u";
  return {
    id,
    bytes: 1,
    wide,
    vector: (p, o) => `i32x4.extend_low_i16x8_${s}(i16x8.extend_low_i8x16_${s}(v128.load32_zero(${at(p, o)})))`,
    get: (p) => `<${wide}>load<${id}>(${p})`,
    put: (p, v) => `store<${id}>(${p}, <${id}>(${v}))`,
  };
};
/** 16-bit floats go through lib/half.ts, whose type parameter names the format: i16 float16, u16 bfloat16. */
const half = (id: "f16" | "bf16", tag: "i16" | "u16"): Element => ({
  id,
  bytes: 2,
  wide: "f32",
  vector: (p, o) => `load4<${tag}>(${o ? `${p} + ${o}` : p})`,
  get: (p) => `load1<${tag}>(${p})`,
  put: (p, v) => `store1<${tag}>(${p}, ${v})`,
});

export const elements: Readonly<Record<Element["id"], Element>> = {
  f32: plain("f32", "f32"),
  f16: half("f16", "i16"),
  bf16: half("bf16", "u16"),
  f64: plain("f64", "f64"),
  i8: byte("i8", "i32"),
  u8: byte("u8", "u32"),
  i16: short("i16", "i32"),
  u16: short("u16", "u32"),
  i32: plain("i32", "i32"),
  u32: plain("u32", "u32"),
  i64: plain("i64", "i64"),
  u64: plain("u64", "u64"),
};

/** Source line that a family using f16 or bf16 elements starts with. */
/** Source line that a family using f16 or bf16 elements starts with. */
export const halfImport = `import { load1, load4, store1 } from "./lib/half";\n`;
export const scratchDeclaration = `// @ts-ignore: decorator\n@external("env", "scratch")\ndeclare const SCRATCH: usize;\n`;
