// Gathers: every output element comes from a place given by K index arrays. The output is row-major.
//
// Argument block (strides in bytes):
//   0 src, 1 dst, 2 K, 3 rank of the outer dimensions of the output
//   4 count of the inner part, 5 its src stride
//   6 .. per index array: address, dtype code, size of the dimension that it indexes, src stride of that dimension, stride of the index array along the inner part
//   then per outer dimension, outermost first: size, src stride (0 for index dimensions), stride of each index array
// Negative indices count from the end; indices outside go to the nearest element, so that nothing outside the source is read.
// Units: outer index.
import { copyRow, loadIndex, wrapIndex } from "./lib/bytes";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

const ARRAYS: i32 = 24;
// SCRATCH: 0 src, 4.. the address in each index array; from COUNTERS on the index in each outer dimension.
const COUNTERS: usize = 1024;

function seek(a: usize, unit: i32): void {
  const k = load<i32>(a, 8);
  const dims = a + ARRAYS + 20 * k;
  const step = 4 * (2 + k);
  let src = load<u32>(a);
  for (let i = 0; i < k; i++) store<u32>(SCRATCH + 4 * i, load<u32>(a + ARRAYS + 20 * i), 4);
  for (let d = load<i32>(a, 12) - 1; d >= 0; d--) {
    const q = dims + step * d;
    const size = load<i32>(q);
    const at = unit % size;
    unit = unit / size;
    src += <u32>at * load<u32>(q, 4);
    for (let i = 0; i < k; i++) store<u32>(SCRATCH + 4 * i, load<u32>(SCRATCH + 4 * i, 4) + <u32>at * load<u32>(q + 4 * i, 8), 4);
    store<i32>(SCRATCH + COUNTERS + 4 * d, at);
  }
  store<u32>(SCRATCH, src);
}

function advance(a: usize): void {
  const k = load<i32>(a, 8);
  const dims = a + ARRAYS + 20 * k;
  const step = 4 * (2 + k);
  for (let d = load<i32>(a, 12) - 1; d >= 0; d--) {
    const q = dims + step * d;
    const size = load<i32>(q);
    let at = load<i32>(SCRATCH + COUNTERS + 4 * d) + 1;
    let move: u32 = 1;
    if (at == size) {
      move = 1 - <u32>size;
      at = 0;
    }
    store<i32>(SCRATCH + COUNTERS + 4 * d, at);
    store<u32>(SCRATCH, load<u32>(SCRATCH) + move * load<u32>(q, 4));
    for (let i = 0; i < k; i++) store<u32>(SCRATCH + 4 * i, load<u32>(SCRATCH + 4 * i, 4) + move * load<u32>(q + 4 * i, 8), 4);
    if (at != 0) break;
  }
}

// Source address of element j of the inner part.
function place(a: usize, k: i32, j: i32): usize {
  let src = load<u32>(SCRATCH) + <u32>j * load<u32>(a, 20);
  for (let i = 0; i < k; i++) {
    const e = a + ARRAYS + 20 * i;
    const at = wrapIndex(loadIndex(load<u32>(SCRATCH + 4 * i, 4) + <u32>j * load<u32>(e, 16), load<i32>(e, 4)), load<i32>(e, 8));
    src += <u32>at * load<u32>(e, 12);
  }
  return src;
}

/** The inner part is a run of word-4 bytes that no index depends on: whole rows are copied. */
export function rows(a: usize, begin: i32, end: i32): void {
  const bytes = load<i32>(a, 16);
  const k = load<i32>(a, 8);
  let dst: usize = load<u32>(a, 4) + <u32>begin * <u32>bytes;
  seek(a, begin);
  for (let unit = begin; unit < end; unit++, dst += bytes) {
    copyRow(dst, place(a, k, 0), bytes);
    advance(a);
  }
}

/** The inner part is a dimension of word-4 elements, each with its own indices. */
function elements<T>(a: usize, begin: i32, end: i32): void {
  const n = load<i32>(a, 16);
  const k = load<i32>(a, 8);
  let dst: usize = load<u32>(a, 4) + <u32>begin * <u32>n * sizeof<T>();
  seek(a, begin);
  for (let unit = begin; unit < end; unit++) {
    if (k == 1) {
      const e = a + ARRAYS;
      const code = load<i32>(e, 4);
      const size = load<i32>(e, 8);
      const stride = load<u32>(e, 12);
      const is = load<u32>(e, 16);
      const ss = load<u32>(a, 20);
      let src = load<u32>(SCRATCH);
      let p = load<u32>(SCRATCH, 4);
      for (let j = 0; j < n; j++, dst += sizeof<T>(), p += is, src += ss) store<T>(dst, load<T>(src + <u32>wrapIndex(loadIndex(p, code), size) * stride));
    } else {
      for (let j = 0; j < n; j++, dst += sizeof<T>()) store<T>(dst, load<T>(place(a, k, j)));
    }
    advance(a);
  }
}
export function elements1(a: usize, begin: i32, end: i32): void {
  elements<u8>(a, begin, end);
}
export function elements2(a: usize, begin: i32, end: i32): void {
  elements<u16>(a, begin, end);
}
export function elements4(a: usize, begin: i32, end: i32): void {
  elements<u32>(a, begin, end);
}
export function elements8(a: usize, begin: i32, end: i32): void {
  elements<u64>(a, begin, end);
}

// Elements of a source with one dimension, by int32 or uint32 indices that lie side by side. Argument block: 0 src, 1 dst, 2 indices, 3 their dtype code, 4 size of the
// source, 5 its stride in bytes. Units: elements. The loop makes four addresses at a time and does nothing else, so that many loads are under way at once.
function run<T>(a: usize, begin: i32, end: i32): void {
  const src = load<u32>(a);
  const code = load<i32>(a, 12);
  const size = load<i32>(a, 16);
  const stride = load<u32>(a, 20);
  let dst: usize = load<u32>(a, 4) + <u32>begin * sizeof<T>();
  let p: usize = load<u32>(a, 8) + 4 * <u32>begin;
  const sizes = i32x4.splat(size);
  const last = i32x4.splat(size - 1);
  const zero = i32x4.splat(0);
  // Indices without a sign are cut at the greatest with one; the others stay.
  const most = i32x4.splat(code == 3 ? 0x7fffffff : -1);
  const strides = i32x4.splat(<i32>stride);
  const base = i32x4.splat(<i32>src);
  const fours = begin + ((end - begin) & ~3);
  let unit = begin;
  for (; unit < fours; unit += 4, p += 16, dst += 4 * sizeof<T>()) {
    const i = i32x4.min_u(v128.load(p), most);
    const wrapped = i32x4.max_s(zero, i32x4.min_s(i32x4.add(i, v128.and(i32x4.lt_s(i, zero), sizes)), last));
    const at = i32x4.add(i32x4.mul(wrapped, strides), base);
    store<T>(dst, load<T>(<u32>i32x4.extract_lane(at, 0)));
    store<T>(dst + sizeof<T>(), load<T>(<u32>i32x4.extract_lane(at, 1)));
    store<T>(dst + 2 * sizeof<T>(), load<T>(<u32>i32x4.extract_lane(at, 2)));
    store<T>(dst + 3 * sizeof<T>(), load<T>(<u32>i32x4.extract_lane(at, 3)));
  }
  for (; unit < end; unit++, p += 4, dst += sizeof<T>()) store<T>(dst, load<T>(src + <u32>wrapIndex(loadIndex(p, code), size) * stride));
}
export function run1(a: usize, begin: i32, end: i32): void {
  run<u8>(a, begin, end);
}
export function run2(a: usize, begin: i32, end: i32): void {
  run<u16>(a, begin, end);
}
export function run4(a: usize, begin: i32, end: i32): void {
  run<u32>(a, begin, end);
}
export function run8(a: usize, begin: i32, end: i32): void {
  run<u64>(a, begin, end);
}
