// Strided copies of elements of 1, 2, 4 or 8 bytes. Source and destination must not overlap.
//
// All kernels here share one argument block (strides are in bytes):
//   0 src, 1 dst
//   2 starts: 0, or the address of i32 start indices, 3 their number, 4 what they move: 0 src, 1 dst
//   5 rank of the outer dimensions
//   6 .. 10 the inner part, see each kernel (words it does not name are unused)
//   11 .. outer dimensions, outermost first: size, src stride, dst stride
//   then per start index: stride, largest start (the index is clamped to 0 .. largest; -1: taken as it is)
import { copyRow } from "./lib/bytes";

// @ts-ignore: decorator
@external("env", "scratch")
declare const SCRATCH: usize;

const DIMS: i32 = 11;

// Place of an outer index in SCRATCH: 0 src, 4 dst, 8.. the index in each outer dimension.
function seek(a: usize, unit: i32): void {
  const rank = load<i32>(a, 20);
  let src = load<u32>(a, 0);
  let dst = load<u32>(a, 4);
  let p = a + 4 * (DIMS + 3 * rank);
  const starts = load<u32>(a, 8);
  if (starts != 0) {
    const n = load<i32>(a, 12);
    let off: u32 = 0;
    for (let i = 0; i < n; i++, p += 8) {
      let at = load<i32>(starts + 4 * i);
      const most = load<i32>(p, 4);
      if (most >= 0) at = max(0, min(at, most));
      off += <u32>at * load<u32>(p);
    }
    if (load<i32>(a, 16) == 0) src += off;
    else dst += off;
  }
  for (let d = rank - 1; d >= 0; d--) {
    const q = a + 4 * (DIMS + 3 * d);
    const size = load<i32>(q);
    const i = unit % size;
    unit = unit / size;
    src += <u32>i * load<u32>(q, 4);
    dst += <u32>i * load<u32>(q, 8);
    store<i32>(SCRATCH + 8 + 4 * d, i);
  }
  store<u32>(SCRATCH, src);
  store<u32>(SCRATCH, dst, 4);
}

function advance(a: usize): void {
  let src = load<u32>(SCRATCH);
  let dst = load<u32>(SCRATCH, 4);
  for (let d = load<i32>(a, 20) - 1; d >= 0; d--) {
    const q = a + 4 * (DIMS + 3 * d);
    const size = load<i32>(q);
    const i = load<i32>(SCRATCH + 8 + 4 * d) + 1;
    src += load<u32>(q, 4);
    dst += load<u32>(q, 8);
    if (i < size) {
      store<i32>(SCRATCH + 8 + 4 * d, i);
      break;
    }
    store<i32>(SCRATCH + 8 + 4 * d, 0);
    src -= <u32>size * load<u32>(q, 4);
    dst -= <u32>size * load<u32>(q, 8);
  }
  store<u32>(SCRATCH, src);
  store<u32>(SCRATCH, dst, 4);
}

/**
 * Rows that are contiguous on both sides. Units: outer index x segment.
 * 6 bytes of a row, 7 segments of a row, 8 bytes of a segment
 */
export function rows(a: usize, begin: i32, end: i32): void {
  const bytes = load<u32>(a, 24);
  const segments = load<i32>(a, 28);
  const piece = load<u32>(a, 32);
  let unit = begin;
  let s = unit % segments;
  seek(a, unit / segments);
  while (unit < end) {
    const from = <u32>s * piece;
    copyRow(load<u32>(SCRATCH, 4) + from, load<u32>(SCRATCH) + from, <i32>min<u32>(piece, bytes - from));
    unit++;
    if (++s == segments) {
      s = 0;
      advance(a);
    }
  }
}

/**
 * Elements with any strides. Units: outer index x segment.
 * 6 elements of a row, 7 segments of a row, 8 elements of a segment, 9 src stride, 10 dst stride of the row
 */
function elements<T>(a: usize, begin: i32, end: i32): void {
  const count = load<u32>(a, 24);
  const segments = load<i32>(a, 28);
  const piece = load<u32>(a, 32);
  const ss = load<u32>(a, 36);
  const ds = load<u32>(a, 40);
  let unit = begin;
  let s = unit % segments;
  seek(a, unit / segments);
  while (unit < end) {
    const from = <u32>s * piece;
    let n = <i32>min<u32>(piece, count - from);
    let src = load<u32>(SCRATCH) + from * ss;
    let dst = load<u32>(SCRATCH, 4) + from * ds;
    if (ss == 0) {
      const x = load<T>(src);
      for (; n > 0; n--, dst += ds) store<T>(dst, x);
    } else {
      for (; n >= 4; n -= 4) {
        const x0 = load<T>(src);
        const x1 = load<T>(src + ss);
        const x2 = load<T>(src + 2 * ss);
        const x3 = load<T>(src + 3 * ss);
        store<T>(dst, x0);
        store<T>(dst + ds, x1);
        store<T>(dst + 2 * ds, x2);
        store<T>(dst + 3 * ds, x3);
        src += 4 * ss;
        dst += 4 * ds;
      }
      for (; n > 0; n--, src += ss, dst += ds) store<T>(dst, load<T>(src));
    }
    unit++;
    if (++s == segments) {
      s = 0;
      advance(a);
    }
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

// Scalar part of a tile: h rows (contiguous in src) of w columns (contiguous in dst).
function tileScalar<T>(src: usize, dst: usize, h: i32, w: i32, ss: usize, ds: usize): void {
  for (let i = 0; i < h; i++) {
    let p = src + <usize>i * sizeof<T>();
    let q = dst + <usize>i * ds;
    for (let j = 0; j < w; j++, p += ss, q += sizeof<T>()) store<T>(q, load<T>(p));
  }
}

// 4 x 4 elements of 4 bytes.
function block4(src: usize, dst: usize, ss: usize, ds: usize): void {
  const a = v128.load(src);
  const b = v128.load(src + ss);
  const c = v128.load(src + 2 * ss);
  const d = v128.load(src + 3 * ss);
  const ab0 = v128.shuffle<i32>(a, b, 0, 4, 1, 5);
  const ab1 = v128.shuffle<i32>(a, b, 2, 6, 3, 7);
  const cd0 = v128.shuffle<i32>(c, d, 0, 4, 1, 5);
  const cd1 = v128.shuffle<i32>(c, d, 2, 6, 3, 7);
  v128.store(dst, v128.shuffle<i64>(ab0, cd0, 0, 2));
  v128.store(dst + ds, v128.shuffle<i64>(ab0, cd0, 1, 3));
  v128.store(dst + 2 * ds, v128.shuffle<i64>(ab1, cd1, 0, 2));
  v128.store(dst + 3 * ds, v128.shuffle<i64>(ab1, cd1, 1, 3));
}

// 8 x 8 elements of 2 bytes.
function block2(src: usize, dst: usize, ss: usize, ds: usize): void {
  const a = v128.load(src);
  const b = v128.load(src + ss);
  const c = v128.load(src + 2 * ss);
  const d = v128.load(src + 3 * ss);
  src += 4 * ss;
  const e = v128.load(src);
  const f = v128.load(src + ss);
  const g = v128.load(src + 2 * ss);
  const h = v128.load(src + 3 * ss);
  const ab0 = v128.shuffle<i16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  const ab1 = v128.shuffle<i16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  const cd0 = v128.shuffle<i16>(c, d, 0, 8, 1, 9, 2, 10, 3, 11);
  const cd1 = v128.shuffle<i16>(c, d, 4, 12, 5, 13, 6, 14, 7, 15);
  const ef0 = v128.shuffle<i16>(e, f, 0, 8, 1, 9, 2, 10, 3, 11);
  const ef1 = v128.shuffle<i16>(e, f, 4, 12, 5, 13, 6, 14, 7, 15);
  const gh0 = v128.shuffle<i16>(g, h, 0, 8, 1, 9, 2, 10, 3, 11);
  const gh1 = v128.shuffle<i16>(g, h, 4, 12, 5, 13, 6, 14, 7, 15);
  const ad0 = v128.shuffle<i32>(ab0, cd0, 0, 4, 1, 5);
  const ad1 = v128.shuffle<i32>(ab0, cd0, 2, 6, 3, 7);
  const ad2 = v128.shuffle<i32>(ab1, cd1, 0, 4, 1, 5);
  const ad3 = v128.shuffle<i32>(ab1, cd1, 2, 6, 3, 7);
  const eh0 = v128.shuffle<i32>(ef0, gh0, 0, 4, 1, 5);
  const eh1 = v128.shuffle<i32>(ef0, gh0, 2, 6, 3, 7);
  const eh2 = v128.shuffle<i32>(ef1, gh1, 0, 4, 1, 5);
  const eh3 = v128.shuffle<i32>(ef1, gh1, 2, 6, 3, 7);
  v128.store(dst, v128.shuffle<i64>(ad0, eh0, 0, 2));
  v128.store(dst + ds, v128.shuffle<i64>(ad0, eh0, 1, 3));
  v128.store(dst + 2 * ds, v128.shuffle<i64>(ad1, eh1, 0, 2));
  v128.store(dst + 3 * ds, v128.shuffle<i64>(ad1, eh1, 1, 3));
  dst += 4 * ds;
  v128.store(dst, v128.shuffle<i64>(ad2, eh2, 0, 2));
  v128.store(dst + ds, v128.shuffle<i64>(ad2, eh2, 1, 3));
  v128.store(dst + 2 * ds, v128.shuffle<i64>(ad3, eh3, 0, 2));
  v128.store(dst + 3 * ds, v128.shuffle<i64>(ad3, eh3, 1, 3));
}

function tile<T>(src: usize, dst: usize, h: i32, w: i32, ss: usize, ds: usize): void {
  if (sizeof<T>() == 2 || sizeof<T>() == 4) {
    const b = sizeof<T>() == 2 ? 8 : 4;
    const wb = w - (w % b);
    let i = 0;
    for (; i + b <= h; i += b) {
      const p = src + <usize>i * sizeof<T>();
      const q = dst + <usize>i * ds;
      for (let j = 0; j < wb; j += b) {
        if (sizeof<T>() == 2) block2(p + <usize>j * ss, q + <usize>j * sizeof<T>(), ss, ds);
        else block4(p + <usize>j * ss, q + <usize>j * sizeof<T>(), ss, ds);
      }
      if (wb < w) tileScalar<T>(p + <usize>wb * ss, q + <usize>wb * sizeof<T>(), b, w - wb, ss, ds);
    }
    if (i < h) tileScalar<T>(src + <usize>i * sizeof<T>(), dst + <usize>i * ds, h - i, w, ss, ds);
  } else tileScalar<T>(src, dst, h, w, ss, ds);
}

/**
 * Transposition: H rows contiguous in src become W-long rows contiguous in dst, in tiles of 32 x 32. Units: outer index x tile.
 * 6 H (dimension with src stride 1), 7 W (dimension with dst stride 1), 8 src stride along W, 9 dst stride along H
 */
function tiles<T>(a: usize, begin: i32, end: i32): void {
  const h = load<i32>(a, 24);
  const w = load<i32>(a, 28);
  const ss = load<u32>(a, 32);
  const ds = load<u32>(a, 36);
  const across = (w + 31) >> 5;
  const per = ((h + 31) >> 5) * across;
  let unit = begin;
  let t = unit % per;
  seek(a, unit / per);
  while (unit < end) {
    const i = (t / across) << 5;
    const j = (t % across) << 5;
    const src = load<u32>(SCRATCH) + <u32>i * sizeof<T>() + <u32>j * ss;
    const dst = load<u32>(SCRATCH, 4) + <u32>j * sizeof<T>() + <u32>i * ds;
    tile<T>(src, dst, min(32, h - i), min(32, w - j), ss, ds);
    unit++;
    if (++t == per) {
      t = 0;
      advance(a);
    }
  }
}
export function tiles1(a: usize, begin: i32, end: i32): void {
  tiles<u8>(a, begin, end);
}
export function tiles2(a: usize, begin: i32, end: i32): void {
  tiles<u16>(a, begin, end);
}
export function tiles4(a: usize, begin: i32, end: i32): void {
  tiles<u32>(a, begin, end);
}
export function tiles8(a: usize, begin: i32, end: i32): void {
  tiles<u64>(a, begin, end);
}
