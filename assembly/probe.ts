/** Kernels that measure the machine (read bandwidth, multiply-add rate) and let the pool be tested on its own. */

/** Sums the bytes of blocks, to measure read bandwidth. Words: pointer, block bytes, out pointer (u32 per unit). */
export function readBlocks(a: usize, begin: i32, end: i32): void {
  const base = <usize>load<u32>(a);
  const block = <usize>load<u32>(a, 4);
  const out = <usize>load<u32>(a, 8);
  for (let u = begin; u < end; u++) {
    let q = base + <usize>u * block;
    const e = q + block;
    let s0 = i64x2.splat(0), s1 = s0, s2 = s0, s3 = s0;
    for (; q < e; q += 64) {
      s0 = i64x2.add(s0, v128.load(q));
      s1 = i64x2.add(s1, v128.load(q, 16));
      s2 = i64x2.add(s2, v128.load(q, 32));
      s3 = i64x2.add(s3, v128.load(q, 48));
    }
    s0 = i64x2.add(i64x2.add(s0, s1), i64x2.add(s2, s3));
    store<u32>(out + <usize>u * 4, <u32>(i64x2.extract_lane(s0, 0) + i64x2.extract_lane(s0, 1)));
  }
}

/** Runs dependent chains of f32 multiplications and additions. Words: rounds per unit, out pointer (16 bytes per unit). Each round is 12 x 4 multiply-adds. */
export function multiplyAdd(a: usize, begin: i32, end: i32): void {
  const rounds = load<i32>(a);
  const out = <usize>load<u32>(a, 4);
  const m = f32x4.splat(0.999), c = f32x4.splat(0.001);
  for (let u = begin; u < end; u++) {
    let x0 = f32x4.splat(<f32>u), x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0, x6 = x0, x7 = x0, x8 = x0, x9 = x0, x10 = x0, x11 = x0;
    for (let i = 0; i < rounds; i++) {
      if (ASC_FEATURE_RELAXED_SIMD) {
        x0 = f32x4.relaxed_madd(x0, m, c); x1 = f32x4.relaxed_madd(x1, m, c); x2 = f32x4.relaxed_madd(x2, m, c);
        x3 = f32x4.relaxed_madd(x3, m, c); x4 = f32x4.relaxed_madd(x4, m, c); x5 = f32x4.relaxed_madd(x5, m, c);
        x6 = f32x4.relaxed_madd(x6, m, c); x7 = f32x4.relaxed_madd(x7, m, c); x8 = f32x4.relaxed_madd(x8, m, c);
        x9 = f32x4.relaxed_madd(x9, m, c); x10 = f32x4.relaxed_madd(x10, m, c); x11 = f32x4.relaxed_madd(x11, m, c);
      } else {
        x0 = f32x4.add(f32x4.mul(x0, m), c); x1 = f32x4.add(f32x4.mul(x1, m), c); x2 = f32x4.add(f32x4.mul(x2, m), c);
        x3 = f32x4.add(f32x4.mul(x3, m), c); x4 = f32x4.add(f32x4.mul(x4, m), c); x5 = f32x4.add(f32x4.mul(x5, m), c);
        x6 = f32x4.add(f32x4.mul(x6, m), c); x7 = f32x4.add(f32x4.mul(x7, m), c); x8 = f32x4.add(f32x4.mul(x8, m), c);
        x9 = f32x4.add(f32x4.mul(x9, m), c); x10 = f32x4.add(f32x4.mul(x10, m), c); x11 = f32x4.add(f32x4.mul(x11, m), c);
      }
    }
    x0 = f32x4.add(f32x4.add(f32x4.add(x0, x1), f32x4.add(x2, x3)), f32x4.add(f32x4.add(x4, x5), f32x4.add(x6, x7)));
    x0 = f32x4.add(x0, f32x4.add(f32x4.add(x8, x9), f32x4.add(x10, x11)));
    v128.store(out + <usize>u * 16, x0);
  }
}

/** Adds 1 to one u32 per unit: every unit of every command must run exactly once. Words: pointer. */
export function count(a: usize, begin: i32, end: i32): void {
  const base = <usize>load<u32>(a);
  for (let u = begin; u < end; u++) {
    const p = base + <usize>u * 4;
    store<u32>(p, load<u32>(p) + 1);
  }
}

/** Multiplies each u32 by 3 and adds the word: not commutative, so commands out of order show. Words: pointer, addend. */
export function chain(a: usize, begin: i32, end: i32): void {
  const base = <usize>load<u32>(a);
  const add = load<u32>(a, 4);
  for (let u = begin; u < end; u++) {
    const p = base + <usize>u * 4;
    store<u32>(p, load<u32>(p) * 3 + add);
  }
}
