// Copies of short rows. memory.copy is a call into the engine (about 20 ns), so short rows go through vectors.

/** Copies n bytes between places that do not overlap. */
export function copyRow(dst: usize, src: usize, n: i32): void {
  if (n >= 512) {
    memory.copy(dst, src, <usize>n);
    return;
  }
  while (n >= 16) {
    v128.store(dst, v128.load(src));
    src += 16;
    dst += 16;
    n -= 16;
  }
  if (n >= 8) {
    store<u64>(dst, load<u64>(src));
    src += 8;
    dst += 8;
    n -= 8;
  }
  if (n >= 4) {
    store<u32>(dst, load<u32>(src));
    src += 4;
    dst += 4;
    n -= 4;
  }
  for (; n > 0; n--, src++, dst++) store<u8>(dst, load<u8>(src));
}

/** Index number i at address p whose dtype has this code (see assembly/README.md), as i32; values beyond the i32 range are clamped to it. */
export function loadIndex(p: usize, code: i32): i32 {
  switch (code) {
    case 7:
      return load<i32>(p);
    case 3:
      return <i32>min<u32>(load<u32>(p), 0x7fffffff);
    case 8: {
      const x = load<i64>(p);
      return <i32>max<i64>(-0x80000000, min<i64>(x, 0x7fffffff));
    }
    case 4:
      return <i32>min<u64>(load<u64>(p), 0x7fffffff);
    case 5:
      return load<i8>(p);
    case 6:
      return load<i16>(p);
    case 2:
      return load<u16>(p);
    default:
      return load<u8>(p);
  }
}

/** Place of index i along a dimension: negative counts from the end once; what is still outside goes to the nearest element. */
export function wrapIndex(i: i32, size: i32): i32 {
  if (i < 0) i += size;
  return max(0, min(i, size - 1));
}
