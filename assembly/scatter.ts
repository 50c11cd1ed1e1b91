// Scatters: every element of the updates goes to, or is combined with, a place of the destination given by K index arrays.
//
// Updates that may meet at one place must come from one thread, in order; so the dimensions are split into parallel ones (no index depends on what
// they have in common) and serial ones. Argument block (strides in bytes):
//   0 dst, 1 updates, 2 K, 3 number of parallel dimensions, 4 number of serial dimensions
//   5 elements of the inner run, 6 its dst stride, 7 its updates stride, 8 segments of the run, 9 elements of a segment
//   10 mode: 0 assign, 1 add, 2 multiply, 3 maximum, 4 minimum; 11 dtype code, 12 bytes of an element
//   13 .. per index array: address, dtype code, size of the dimension that it indexes, dst stride of that dimension
//   then the parallel dimensions and the serial ones, outermost first: size, dst stride, updates stride, stride of each index array
// Negative indices count from the end; indices outside go to the nearest element. Units: parallel index x segment.
import { copyRow, loadIndex, wrapIndex } from "./lib/bytes";
import { load1, store1 } from "./lib/half";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

const ARRAYS: i32 = 52;
// SCRATCH: 0 dst, 4 updates, 8.. the address in each index array; from COUNTERS on the index in each dimension.
const COUNTERS: usize = 1024;

@inline
function move(q: usize, k: i32, by: u32): void {
  store<u32>(SCRATCH, load<u32>(SCRATCH) + by * load<u32>(q, 4));
  store<u32>(SCRATCH, load<u32>(SCRATCH, 4) + by * load<u32>(q, 8), 4);
  for (let i = 0; i < k; i++) store<u32>(SCRATCH + 4 * i, load<u32>(SCRATCH + 4 * i, 8) + by * load<u32>(q + 4 * i, 12), 8);
}

function seek(a: usize, unit: i32): void {
  const k = load<i32>(a, 8);
  const dims = a + ARRAYS + 16 * k;
  store<u32>(SCRATCH, load<u32>(a));
  store<u32>(SCRATCH, load<u32>(a, 4), 4);
  for (let i = 0; i < k; i++) store<u32>(SCRATCH + 4 * i, load<u32>(a + ARRAYS + 16 * i), 8);
  for (let d = load<i32>(a, 12) - 1; d >= 0; d--) {
    const q = dims + 4 * (3 + k) * d;
    const size = load<i32>(q);
    const at = unit % size;
    unit = unit / size;
    move(q, k, <u32>at);
  }
  for (let d = 0; d < load<i32>(a, 16); d++) store<i32>(SCRATCH + COUNTERS + 4 * d, 0);
}

// Next serial index; false after the last one.
function advance(a: usize): bool {
  const k = load<i32>(a, 8);
  const serial = a + ARRAYS + 16 * k + 4 * (3 + k) * load<i32>(a, 12);
  for (let d = load<i32>(a, 16) - 1; d >= 0; d--) {
    const q = serial + 4 * (3 + k) * d;
    const size = load<i32>(q);
    const at = load<i32>(SCRATCH + COUNTERS + 4 * d) + 1;
    if (at < size) {
      store<i32>(SCRATCH + COUNTERS + 4 * d, at);
      move(q, k, 1);
      return true;
    }
    store<i32>(SCRATCH + COUNTERS + 4 * d, 0);
    move(q, k, 1 - <u32>size);
  }
  return false;
}

function assign<T>(dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  for (; n > 0; n--, dst += ds, src += ss) store<T>(dst, load<T>(src));
}

// NaN wins in maximum and minimum.
@inline
function combine<T>(mode: i32, x: T, y: T): T {
  if (mode == 1) return <T>(x + y);
  if (mode == 2) return <T>(x * y);
  if (mode == 3) return x > y || x != x ? x : y;
  return x < y || x != x ? x : y;
}
function numbers<T>(mode: i32, dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  for (; n > 0; n--, dst += ds, src += ss) store<T>(dst, combine<T>(mode, load<T>(dst), load<T>(src)));
}
// 16-bit floats: T as in lib/half.
function halves<T>(mode: i32, dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  for (; n > 0; n--, dst += ds, src += ss) store1<T>(dst, combine<f32>(mode, load1<T>(dst), load1<T>(src)));
}
function booleans(mode: i32, dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  const or = mode == 1 || mode == 3;
  for (; n > 0; n--, dst += ds, src += ss) {
    const x = load<u8>(dst);
    const y = load<u8>(src);
    store<u8>(dst, or ? x | y : x & y);
  }
}
// Complex numbers are ordered by real part, then imaginary part.
function complexes(mode: i32, dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  for (; n > 0; n--, dst += ds, src += ss) {
    const a = load<f32>(dst);
    const b = load<f32>(dst, 4);
    const c = load<f32>(src);
    const d = load<f32>(src, 4);
    if (mode == 1) {
      store<f32>(dst, a + c);
      store<f32>(dst, b + d, 4);
    } else if (mode == 2) {
      store<f32>(dst, a * c - b * d);
      store<f32>(dst, a * d + b * c, 4);
    } else {
      const greater = a > c || (a == c && b > d);
      const nan = a != a || b != b;
      if (!nan && (mode == 3 ? !greater : greater)) store<u64>(dst, load<u64>(src));
    }
  }
}

function run(mode: i32, code: i32, size: i32, dst: usize, src: usize, ds: usize, ss: usize, n: i32): void {
  if (mode == 0) {
    if (ds == size && ss == size) copyRow(dst, src, n * size);
    else if (size == 1) assign<u8>(dst, src, ds, ss, n);
    else if (size == 2) assign<u16>(dst, src, ds, ss, n);
    else if (size == 4) assign<u32>(dst, src, ds, ss, n);
    else assign<u64>(dst, src, ds, ss, n);
    return;
  }
  switch (code) {
    case 0: booleans(mode, dst, src, ds, ss, n); break;
    case 1: numbers<u8>(mode, dst, src, ds, ss, n); break;
    case 2: numbers<u16>(mode, dst, src, ds, ss, n); break;
    case 3: numbers<u32>(mode, dst, src, ds, ss, n); break;
    case 4: numbers<u64>(mode, dst, src, ds, ss, n); break;
    case 5: numbers<i8>(mode, dst, src, ds, ss, n); break;
    case 6: numbers<i16>(mode, dst, src, ds, ss, n); break;
    case 7: numbers<i32>(mode, dst, src, ds, ss, n); break;
    case 8: numbers<i64>(mode, dst, src, ds, ss, n); break;
    case 9: halves<i16>(mode, dst, src, ds, ss, n); break;
    case 10: numbers<f32>(mode, dst, src, ds, ss, n); break;
    case 11: numbers<f64>(mode, dst, src, ds, ss, n); break;
    case 12: halves<u16>(mode, dst, src, ds, ss, n); break;
    default: complexes(mode, dst, src, ds, ss, n);
  }
}

export function scatter(a: usize, begin: i32, end: i32): void {
  const k = load<i32>(a, 8);
  const count = load<i32>(a, 20);
  const ds = load<u32>(a, 24);
  const ss = load<u32>(a, 28);
  const segments = load<i32>(a, 32);
  const piece = load<i32>(a, 36);
  for (let unit = begin; unit < end; unit++) {
    const from = (unit % segments) * piece;
    seek(a, unit / segments);
    do {
      let dst = load<u32>(SCRATCH) + <u32>from * ds;
      for (let i = 0; i < k; i++) {
        const e = a + ARRAYS + 16 * i;
        dst += <u32>wrapIndex(loadIndex(load<u32>(SCRATCH + 4 * i, 8), load<i32>(e, 4)), load<i32>(e, 8)) * load<u32>(e, 12);
      }
      run(load<i32>(a, 40), load<i32>(a, 44), load<i32>(a, 48), dst, load<u32>(SCRATCH, 4) + <u32>from * ss, ds, ss, min(piece, count - from));
    } while (advance(a));
  }
}

/**
 * Puts consecutive values at the places of the true elements of a mask, in row-major order; when the values run out the last one stays in use. One unit.
 * 0 dst (row-major), 1 mask (row-major bytes), 2 values (row-major), 3 number of mask elements, 4 bytes that one mask element stands for, 5 number of value rows of that many bytes
 */
export function masked(a: usize, begin: i32, end: i32): void {
  if (begin > 0) return;
  let dst: usize = load<u32>(a);
  const mask = load<u32>(a, 4);
  let src: usize = load<u32>(a, 8);
  const n = load<i32>(a, 12);
  const bytes = load<i32>(a, 16);
  let left = load<i32>(a, 20);
  for (let i = 0; i < n; i++, dst += bytes) {
    if (load<u8>(mask + i) == 0) continue;
    copyRow(dst, src, bytes);
    if (--left > 0) src += bytes;
  }
}
