// Kernels that make values.
import { copyRow } from "./lib/bytes";
import { store1 } from "./lib/half";

/**
 * Fills with one value. Units: blocks of 64 KiB.
 * 0 dst, 1 address of the value, 2 bytes of the value (1, 2, 4, 8), 3 bytes to fill (unsigned)
 */
export function fill(a: usize, begin: i32, end: i32): void {
  const value = load<u32>(a, 4);
  const size = load<i32>(a, 8);
  const x = size == 1 ? i8x16.splat(load<i8>(value)) : size == 2 ? i16x8.splat(load<i16>(value)) : size == 4 ? i32x4.splat(load<i32>(value)) : i64x2.splat(load<i64>(value));
  const dst = load<u32>(a);
  let p: usize = dst + (<u32>begin << 16);
  const stop: usize = dst + (end >= <i32>((load<u32>(a, 12) + 65535) >> 16) ? load<u32>(a, 12) : <u32>end << 16);
  for (; p + 16 <= stop; p += 16) v128.store(p, x);
  for (; p < stop; p += size) copyRow(p, value, size);
}

function storeNumber(p: usize, code: i32, x: f64): void {
  switch (code) {
    case 10:
      store<f32>(p, <f32>x);
      break;
    case 11:
      store<f64>(p, x);
      break;
    case 12:
      store1<u16>(p, <f32>x);
      break;
    case 9:
      store1<i16>(p, <f32>x);
      break;
    case 13:
      store<f32>(p, <f32>x);
      store<f32>(p, 0, 4);
      break;
    case 3:
    case 7:
      store<u32>(p, <u32>(<i64>x));
      break;
    case 2:
    case 6:
      store<u16>(p, <u16>(<i64>x));
      break;
    case 4:
    case 8:
      store<i64>(p, (<i64>x));
      break;
    case 0:
      store<u8>(p, x != 0 ? 1 : 0);
      break;
    default:
      store<u8>(p, <u8>(<i64>x));
  }
}

/**
 * start + i * step, computed in float64 and rounded once. Units: blocks of 1024 elements.
 * 0 dst, 1 dtype code, 2-3 start (f64), 4-5 step (f64), 6-7 last element (f64, used when word 8 is 1), 8 flag, 9 number of elements, 10 bytes of an element
 */
export function range(a: usize, begin: i32, end: i32): void {
  const code = load<i32>(a, 4);
  const start = load<f64>(a, 8);
  const step = load<f64>(a, 16);
  const n = load<i32>(a, 36);
  const size = load<i32>(a, 40);
  const stop = min(n, end << 10);
  let p: usize = load<u32>(a) + (<u32>begin << 10) * <u32>size;
  for (let i = begin << 10; i < stop; i++, p += size) storeNumber(p, code, start + <f64>i * step);
  if (stop == n && load<i32>(a, 32) != 0 && n > 1) storeNumber(p - size, code, load<f64>(a, 24));
}

/**
 * Rows of a matrix whose elements (i, j) with low <= j - i <= high get a value: the value at an address, or the source's element. The others become zero. Units: rows.
 * 0 dst, 1 address of the value or of the source (row-major), 2 1: one value, 0: a source, 3 bytes of an element, 4 rows of a matrix, 5 columns, 6 low, 7 high
 */
export function band(a: usize, begin: i32, end: i32): void {
  const from = load<u32>(a, 4);
  const size = load<i32>(a, 12);
  const height = load<i32>(a, 16);
  const width = load<i32>(a, 20);
  for (let unit = begin; unit < end; unit++) {
    const i: i64 = unit % height;
    const lo = <i32>max<i64>(0, min<i64>(width, i + load<i32>(a, 24)));
    const hi = max(lo, <i32>max<i64>(0, min<i64>(width, i + load<i32>(a, 28) + 1)));
    const at = <u32>unit * <u32>(width * size);
    const dst: usize = load<u32>(a) + at;
    memory.fill(dst, 0, lo * size);
    if (load<i32>(a, 8) == 0) copyRow(dst + lo * size, from + at + lo * size, (hi - lo) * size);
    else for (let j = lo; j < hi; j++) copyRow(dst + j * size, from, size);
    memory.fill(dst + hi * size, 0, (width - hi) * size);
  }
}
