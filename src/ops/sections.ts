/** A reduction's view of memory: runs of neighbouring dimensions that are all kept or all reduced. */
import type { Aval, View } from "../core/array.ts";
import type { DtypeName } from "../core/dtype.ts";

/** How kernels that are specialised by element type name it (assembly/templates/elements.ts); complex64 has no such kernels. */
export const storedNames: Partial<Record<DtypeName, string>> = {
  bool: "u8", uint8: "u8", uint16: "u16", uint32: "u32", uint64: "u64", int8: "i8", int16: "i16", int32: "i32", int64: "i64",
  float16: "f16", bfloat16: "bf16", float32: "f32", float64: "f64",
};

export interface Section {
  readonly size: number;
  readonly reduced: boolean;
}

/**
 * The dimensions in the order in which they lie in memory, neighbours merged, or undefined when they have gaps or the kept ones do not lie in their
 * order. So a sum over an axis of a transposed array needs no copy. Dimensions of size 1 vanish.
 */
export function sectionsOf(view: View, axes: readonly number[]): Section[] | undefined {
  const dims = view.shape.map((size, axis) => ({ size, axis, stride: view.strides[axis] as number, reduced: axes.includes(axis) })).filter((d) => d.size !== 1);
  dims.sort((a, b) => b.stride - a.stride);
  let step = 1;
  let kept = Number.POSITIVE_INFINITY;
  for (let i = dims.length - 1; i >= 0; i--) {
    const d = dims[i] as (typeof dims)[number];
    if (d.stride !== step) return undefined;
    step *= d.size;
    if (d.reduced) continue;
    if (d.axis > kept) return undefined;
    kept = d.axis;
  }
  const sections: { size: number; reduced: boolean }[] = [];
  for (const d of dims) {
    const last = sections[sections.length - 1];
    if (last && last.reduced === d.reduced) last.size *= d.size;
    else sections.push({ size: d.size, reduced: d.reduced });
  }
  return sections;
}

export const sizeOfSections = (sections: readonly Section[]): number => sections.reduce((n, s) => n * s.size, 1);

/** Bytes of input that one thread should take at a time: long enough to hide the claim, short enough to balance. */
const bytesAtATime = 128 << 10;
export const grainFor = (bytesPerUnit: number): number => Math.max(1, Math.round(bytesAtATime / Math.max(1, bytesPerUnit)));

/** [outer, n, inner] around one axis, in memory order, or undefined when a copy is needed. */
export function linesOf(x: View, axis: number | null): { outer: number; n: number; inner: number } | undefined {
  if (axis === null) return x.contiguous ? { outer: 1, n: x.size, inner: 1 } : undefined;
  const sections = sectionsOf(x, [axis]);
  const at = sections?.findIndex((s) => s.reduced) ?? -1;
  if (!sections || at < 0) return sections && { outer: x.size, n: 1, inner: 1 };
  return { outer: sizeOfSections(sections.slice(0, at)), n: (sections[at] as Section).size, inner: sizeOfSections(sections.slice(at + 1)) };
}

/** Number of the last dimensions that are reduced, if no others are; complex numbers are left out. */
export function lastAxes({ shape, dtype }: Aval, axes: readonly number[]): number | undefined {
  const first = shape.length - axes.length;
  return axes.length > 0 && dtype.kind !== "complex" && axes.every((axis, i) => axis === first + i) ? axes.length : undefined;
}
/** Reduced axes that are not the last ones and leave something to keep, where sums have one order along them. */
export function otherAxes(x: Aval, axes: readonly number[]): readonly number[] | undefined {
  const n = axes.reduce((m, axis) => m * (x.shape[axis] as number), 1);
  return axes.length > 0 && axes.length < x.shape.length && n > 1 && n < sizeOfShape(x) && x.dtype.kind !== "complex" && lastAxes(x, axes) === undefined ? axes : undefined;
}
const sizeOfShape = ({ shape }: Aval): number => shape.reduce((a, b) => a * b, 1);
