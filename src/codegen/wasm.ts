/** Assembler for WebAssembly modules with one function over the imported shared memory. */

/** Opcodes, https://webassembly.github.io/spec/core/appendix/index-instructions.html */
export const op = {
  block: 0x02, loop: 0x03, if: 0x04, else: 0x05, end: 0x0b, br: 0x0c, br_if: 0x0d, return: 0x0f, drop: 0x1a, select: 0x1b,
  local_get: 0x20, local_set: 0x21, local_tee: 0x22, global_get: 0x23,
  i32_load: 0x28, i32_load8_u: 0x2d, i32_load16_u: 0x2f,
  i32_const: 0x41, i64_const: 0x42,
  i32_eqz: 0x45, i32_lt_u: 0x49, i32_gt_u: 0x4b, i32_ge_u: 0x4f,
  i32_add: 0x6a, i32_sub: 0x6b, i32_mul: 0x6c, i32_div_u: 0x6e, i32_and: 0x71, i32_shl: 0x74, i32_shr_s: 0x75, i32_shr_u: 0x76,
  i64_div_s: 0x7f, i64_div_u: 0x80, i64_shl: 0x86, i64_shr_s: 0x87, i64_shr_u: 0x88,
  f32_convert_i64_s: 0xb4, f32_convert_i64_u: 0xb5, f64_convert_i64_s: 0xb9, f64_convert_i64_u: 0xba,
} as const;

/** Opcodes behind the prefix 0xFC. */
export const saturating = { i64_f32_s: 4, i64_f32_u: 5, i64_f64_s: 6, i64_f64_u: 7 } as const;

/** Opcodes behind the prefix 0xFD. */
export const simd = {
  load: 0x00, load16x4_s: 0x03, load16x4_u: 0x04, load32_splat: 0x09, load64_splat: 0x0a, store: 0x0b, const: 0x0c, shuffle: 0x0d,
  i32x4_splat: 0x11, i64x2_splat: 0x12, f32x4_splat: 0x13, f64x2_splat: 0x14,
  i32x4_extract: 0x1b, i32x4_replace: 0x1c, i64x2_extract: 0x1d, i64x2_replace: 0x1e, f32x4_extract: 0x1f, f32x4_replace: 0x20, f64x2_extract: 0x21, f64x2_replace: 0x22,
  load8_lane: 0x54, load16_lane: 0x55, load32_lane: 0x56, load64_lane: 0x57, store8_lane: 0x58, store16_lane: 0x59, store32_lane: 0x5a, store64_lane: 0x5b,
  load32_zero: 0x5c,
  not: 0x4d, and: 0x4e, andnot: 0x4f, or: 0x50, xor: 0x51, bitselect: 0x52, any_true: 0x53,
  demote: 0x5e, promote: 0x5f,
  i16x8_extend_low_i8_s: 0x87, i16x8_extend_low_i8_u: 0x89, i32x4_extend_low_i16_s: 0xa7, i32x4_extend_low_i16_u: 0xa9,
  i64x2_extend_low_s: 0xc7, i64x2_extend_high_s: 0xc8, i64x2_extend_low_u: 0xc9, i64x2_extend_high_u: 0xca,
  i32x4_shl: 0xab, i32x4_shr_s: 0xac, i32x4_shr_u: 0xad, i64x2_shl: 0xcb, i64x2_shr_s: 0xcc, i64x2_shr_u: 0xcd,
  i32x4_trunc_sat_f32_s: 0xf8, i32x4_trunc_sat_f32_u: 0xf9, f32x4_convert_i32_s: 0xfa, f32x4_convert_i32_u: 0xfb,
  i32x4_trunc_sat_f64_s_zero: 0xfc, i32x4_trunc_sat_f64_u_zero: 0xfd, f64x2_convert_low_i32_s: 0xfe, f64x2_convert_low_i32_u: 0xff,
  f32x4_relaxed_madd: 0x105, f32x4_relaxed_nmadd: 0x106, i32x4_relaxed_laneselect: 0x10b, i64x2_relaxed_laneselect: 0x10c,
} as const;

let relaxed = false;
/**
 * Lets generated kernels use relaxed SIMD: the multiply-add of mathematical functions rounds once. The engine must know relaxed SIMD, and fuse (`fusesMultiplyAdd`):
 * then results are the same on all machines, though not those without it. Off until the backend finds that out.
 */
export function setRelaxed(on: boolean): void {
  relaxed = on;
}
export const isRelaxed = (): boolean => relaxed;

/** Growing buffer of instructions. */
export class Code {
  private bytes = new Uint8Array(1024);
  length = 0;

  byte(b: number): void {
    if (this.length === this.bytes.length) {
      const grown = new Uint8Array(2 * this.length);
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes[this.length++] = b;
  }
  /** One-byte opcodes. */
  op(...codes: number[]): void {
    for (const c of codes) this.byte(c);
  }
  /** Unsigned LEB128. */
  u(value: number): void {
    let v = value;
    while (v >= 0x80) {
      this.byte((v & 0x7f) | 0x80);
      v = Math.floor(v / 128);
    }
    this.byte(v);
  }
  /** Signed LEB128 of a 32-bit integer. */
  s(value: number): void {
    let v = value | 0;
    for (;;) {
      const b = v & 0x7f;
      v >>= 7;
      if ((v === 0 && (b & 0x40) === 0) || (v === -1 && (b & 0x40) !== 0)) {
        this.byte(b);
        return;
      }
      this.byte(b | 0x80);
    }
  }
  get(local: number): void {
    this.byte(op.local_get);
    this.u(local);
  }
  set(local: number): void {
    this.byte(op.local_set);
    this.u(local);
  }
  tee(local: number): void {
    this.byte(op.local_tee);
    this.u(local);
  }
  i32(value: number): void {
    this.byte(op.i32_const);
    this.s(value);
  }
  /** Pushes `local + value`. */
  getPlus(local: number, value: number): void {
    this.get(local);
    this.i32(value);
    this.byte(op.i32_add);
  }
  simd(code: number): void {
    this.byte(0xfd);
    this.u(code);
  }
  /** SIMD instruction on one lane. */
  lane(code: number, lane: number): void {
    this.simd(code);
    this.byte(lane);
  }
  saturating(code: number): void {
    this.byte(0xfc);
    this.u(code);
  }
  /** Alignment hint (none) and offset behind a load or store opcode. */
  offset(offset: number): void {
    this.byte(0);
    this.u(offset);
  }
  /** `v128.const` of 16 bytes. */
  v128(bytes: Uint8Array): void {
    this.simd(simd.const);
    for (const b of bytes) this.byte(b);
  }
  shuffle(lanes: readonly number[]): void {
    this.simd(simd.shuffle);
    for (const l of lanes) this.byte(l);
  }
  append(other: Code): void {
    if (this.length + other.length > this.bytes.length) {
      const grown = new Uint8Array(2 * (this.length + other.length));
      grown.set(this.bytes.subarray(0, this.length));
      this.bytes = grown;
    }
    this.bytes.set(other.bytes.subarray(0, other.length), this.length);
    this.length += other.length;
  }
  done(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }
}

function section(out: Code, id: number, fill: (body: Code) => void): void {
  const body = new Code();
  fill(body);
  out.byte(id);
  out.u(body.length);
  out.append(body);
}
function name(out: Code, text: string): void {
  out.u(text.length);
  for (let i = 0; i < text.length; i++) out.byte(text.charCodeAt(i));
}

const typeI32 = 0x7f;
const typeF32 = 0x7d;
const typeV128 = 0x7b;

/**
 * Module with the one export `k(a, begin, end)` (the kernel ABI, assembly/README.md). `code` ends without `end`; its locals are the 3
 * parameters, then `i32Locals` integers, then `v128Locals` vectors. With `scratch`, global 0 is the address of the thread's own scratch memory.
 */
export function kernelModule(code: Code, i32Locals: number, v128Locals: number, scratch = false): Uint8Array {
  const out = new Code();
  out.op(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
  section(out, 1, (b) => b.op(1, 0x60, 3, typeI32, typeI32, typeI32, 0));
  section(out, 2, (b) => {
    b.u(scratch ? 2 : 1);
    name(b, "env");
    name(b, "memory");
    // Shared, with a maximum: 65536 pages.
    b.op(2, 3, 1);
    b.u(65536);
    if (!scratch) return;
    name(b, "env");
    name(b, "scratch");
    b.op(3, typeI32, 0);
  });
  section(out, 3, (b) => b.op(1, 0));
  section(out, 7, (b) => {
    b.u(1);
    name(b, "k");
    b.op(0, 0);
  });
  section(out, 10, (b) => {
    const body = new Code();
    body.u(2);
    body.u(i32Locals);
    body.byte(typeI32);
    body.u(v128Locals);
    body.byte(typeV128);
    body.append(code);
    body.byte(op.end);
    b.u(1);
    b.u(body.length);
    b.append(body);
  });
  return out.done();
}

/** Whether relaxed multiply-add rounds once here: (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 then, otherwise 0. The engine must know relaxed SIMD. */
export function fusesMultiplyAdd(): boolean {
  const out = new Code();
  out.op(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
  section(out, 1, (b) => b.op(1, 0x60, 0, 1, typeF32));
  section(out, 3, (b) => b.op(1, 0));
  section(out, 7, (b) => {
    b.u(1);
    name(b, "k");
    b.op(0, 0);
  });
  section(out, 10, (b) => {
    const body = new Code();
    body.u(0);
    for (const x of [1 + 2 ** -12, 1 + 2 ** -12, -1 - 2 ** -11]) body.v128(new Uint8Array(new Float32Array(4).fill(x).buffer));
    body.simd(simd.f32x4_relaxed_madd);
    body.lane(simd.f32x4_extract, 0);
    body.byte(op.end);
    b.u(1);
    b.u(body.length);
    b.append(body);
  });
  const { k } = new WebAssembly.Instance(new WebAssembly.Module(out.done() as Uint8Array<ArrayBuffer>)).exports as { k: () => number };
  return k() === 2 ** -24;
}
