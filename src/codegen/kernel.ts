/** Loops of elementwise kernels: where elements come from, in which blocks they are computed, where they go. */
import { type Dtype, int16, int8 } from "../core/dtype.ts";
import { type Value, isWide, reachable } from "../core/expr.ts";
import { emitOp, parts, shiftCount } from "./lanes.ts";
import { type CommonForm, type Stored, commonForm } from "./lower.ts";
import { type UnitLocals, loadWord, placeChunk, placeRow } from "./places.ts";
import { Code, kernelModule, op, simd } from "./wasm.ts";

/**
 * How the elements of an input lie along the inner dimension: `unit` one after another, `row` one value for the whole row, `once` one
 * value for the whole array, `gather` with another stride.
 */
export type Access = "unit" | "row" | "once" | "gather";

/** What a kernel is made for. No sizes: they are arguments. */
export interface KernelPlan {
  readonly outputs: readonly Stored[];
  readonly access: readonly Access[];
  /** Bytes of one element of each input. */
  readonly inputBytes: readonly number[];
  /** Number of dimensions around the inner one; 0: one long row, cut into chunks. */
  readonly outer: number;
}

/**
 * Words of the argument block: input pointers, output pointers, elements of the inner dimension, elements per chunk; with outer
 * dimensions also chunks per row; the byte stride of each gathered input; the outer dimensions but the first; the outer byte strides of each input that is not read once.
 * Units are chunks of rows.
 */
export interface ArgumentLayout {
  readonly size: number;
  readonly chunk: number;
  readonly chunks: number;
  readonly gather: number;
  readonly dims: number;
  readonly strides: number;
  readonly words: number;
}
export function argumentLayout(plan: Pick<KernelPlan, "access" | "outer"> & { readonly outputs: { readonly length: number } }): ArgumentLayout {
  const { access, outer } = plan;
  const size = access.length + plan.outputs.length;
  const gather = size + (outer > 0 ? 3 : 2);
  const dims = gather + access.filter((m) => m === "gather").length;
  const strides = dims + Math.max(0, outer - 1);
  return { size, chunk: size + 1, chunks: size + 2, gather, dims, strides, words: strides + outer * access.filter((m) => m !== "once").length };
}

/** At what time a value is known: before everything, at the start of a row, per element. */
const once = 0;
const row = 1;
const element = 2;

/** Makes the module. */
export function emitKernel(plan: KernelPlan): Uint8Array {
  return new Emitter(plan).module();
}

/** Number of vector instructions per four elements that are not rare: what unrolling and grain are chosen by. */
export function weigh(outputs: readonly Stored[]): number {
  let n = 0;
  for (const v of reachable((commonForm(outputs)?.outputs ?? outputs).map((o) => o.value))) if (v.op !== "const") n += (v.op === "div" || v.op === "sqrt" ? 3 : v.op === "quot" ? 20 : 1) * parts(v.type);
  return n;
}

// Locals of the function: 3 parameters, then these integers, then pointers and gather strides.
const pBegin = 1;
const pEnd = 2;
const lSize = 3;
const lChunk = 4;
const lCount = 5;
const lAt = 6;
const lRow = 7;
const lRest = 8;
const lIndex = 9;
const unitLocals: UnitLocals = { unit: pBegin, size: lSize, chunk: lChunk, row: lRow, rest: lRest, index: lIndex, at: lAt, count: lCount };
const lOffset = 10;
const firstPointer = 11;

class Emitter {
  private readonly c = new Code();
  private readonly plan: KernelPlan;
  private readonly words: ArgumentLayout;
  private readonly order: Value[];
  /** What is computed first, where something is rare: `order` of it is `commonOrder`. */
  private readonly common: CommonForm | undefined;
  private readonly commonOrder: Value[];
  private readonly level = new Map<Value, number>();
  /** Locals of values that are known before the element loop. */
  private readonly fixed = new Map<Value, number[]>();
  private readonly gatherLocal: number[] = [];
  private readonly i32Locals: number;
  private readonly firstVector: number;
  private vectors = 0;
  private readonly free: number[] = [];

  constructor(plan: KernelPlan) {
    this.plan = plan;
    this.words = argumentLayout(plan);
    this.order = this.ordered(plan.outputs.map((o) => o.value));
    this.common = commonForm(plan.outputs);
    this.commonOrder = this.common ? this.ordered([...this.common.outputs.map((o) => o.value), ...this.common.unless]) : [];
    let next = firstPointer + plan.access.length + plan.outputs.length;
    plan.access.forEach((m, i) => {
      if (m === "gather") this.gatherLocal[i] = next++;
    });
    this.i32Locals = next - 3;
    this.firstVector = next;
  }

  module(): Uint8Array {
    const { c, words } = this;
    c.get(pBegin);
    c.get(pEnd);
    c.op(op.i32_ge_u, op.if, 0x40, op.return, op.end);
    this.loadWord(words.size, lSize);
    this.loadWord(words.chunk, lChunk);
    let g = words.gather;
    this.plan.access.forEach((m, i) => {
      if (m === "gather") this.loadWord(g++, this.gatherLocal[i] as number);
      if (m === "once") this.loadWord(i, firstPointer + i);
    });
    this.emitFixed(once);
    if (this.plan.outer === 0) this.emitFlat();
    else this.emitRows();
    return kernelModule(c, this.i32Locals, this.vectors);
  }

  private ordered(results: readonly Value[]): Value[] {
    const order = reachable(results);
    for (const v of order) this.level.set(v, this.levelOf(v));
    return order;
  }
  private levelOf(v: Value): number {
    if (v.op === "input") {
      const m = this.plan.access[Number(v.imm)];
      return m === "once" ? once : m === "row" ? row : element;
    }
    let level = once;
    for (const a of v.args) level = Math.max(level, this.level.get(a) as number);
    return level;
  }

  private loadWord(word: number, local: number): void {
    loadWord(this.c, word, local);
  }
  /** One row, cut into chunks: [begin * chunk, min(end * chunk, size)). */
  private emitFlat(): void {
    const { c, plan } = this;
    c.get(pBegin);
    c.get(lChunk);
    c.op(op.i32_mul);
    c.set(lAt);
    c.get(pEnd);
    c.get(lChunk);
    c.op(op.i32_mul);
    c.tee(lRest);
    c.get(lSize);
    c.get(lRest);
    c.get(lSize);
    c.op(op.i32_lt_u, op.select);
    c.get(lAt);
    c.op(op.i32_sub);
    c.set(lCount);
    plan.access.forEach((m, i) => {
      if (m === "once") return;
      this.loadWord(i, firstPointer + i);
      this.advance(i, m);
    });
    this.placeOutputs(() => c.get(lAt));
    this.emitElements();
  }
  /** Pointer of input i += position in the row. */
  private advance(i: number, m: Access): void {
    const { c } = this;
    if (m === "row") return;
    c.get(firstPointer + i);
    c.get(lAt);
    if (m === "gather") c.get(this.gatherLocal[i] as number);
    else c.i32(this.plan.inputBytes[i] as number);
    c.op(op.i32_mul, op.i32_add);
    c.set(firstPointer + i);
  }
  /** Output pointers to the element whose number `push` leaves on the stack. */
  private placeOutputs(push: () => void): void {
    const { c, plan } = this;
    plan.outputs.forEach((o, j) => {
      const k = plan.access.length + j;
      this.loadWord(k, firstPointer + k);
      c.get(firstPointer + k);
      push();
      c.i32(o.bytes);
      c.op(op.i32_mul, op.i32_add);
      c.set(firstPointer + k);
    });
  }

  /** For each unit: find the row and the chunk, place the pointers, compute the elements. */
  private emitRows(): void {
    const { c, words, plan } = this;
    c.op(op.loop, 0x40);
    placeChunk(c, unitLocals, words.chunks);
    this.placeRow();
    plan.access.forEach((m, i) => {
      if (m !== "once") this.advance(i, m);
    });
    c.get(lRow);
    c.get(lSize);
    c.op(op.i32_mul);
    c.get(lAt);
    c.op(op.i32_add);
    c.set(lOffset);
    this.placeOutputs(() => c.get(lOffset));
    this.emitFixed(row);
    this.emitElements();
    c.getPlus(pBegin, 1);
    c.tee(pBegin);
    c.get(pEnd);
    c.op(op.i32_lt_u, op.br_if, 0, op.end);
  }
  /** Input pointers to the start of row lRow. */
  private placeRow(): void {
    const { c, words, plan } = this;
    placeRow(c, unitLocals, { outer: plan.outer, dims: words.dims, strides: words.strides, access: plan.access, base: (i) => firstPointer + i });
  }

  /** Values that are known before the element loop, kept in locals of their own. */
  private emitFixed(level: number): void {
    const used = new Set<Value>([...this.plan.outputs, ...(this.common?.outputs ?? [])].map((o) => o.value));
    for (const v of this.common?.unless ?? []) used.add(v);
    const nodes = new Set([...this.commonOrder, ...this.order]);
    for (const v of nodes) {
      // The count of a constant shift is part of the instruction.
      const args = shiftCount(v) === undefined ? v.args : v.args.slice(0, 1);
      for (const a of args) used.add(a);
    }
    for (const v of nodes) {
      if (this.level.get(v) !== level || !used.has(v)) continue;
      if (v.op === "const") {
        this.c.v128(constBytes(v));
        const local = this.newVector();
        this.c.set(local);
        this.fixed.set(v, [local, local]);
        continue;
      }
      const locals = Array.from({ length: parts(v.type) }, () => this.newVector());
      locals.forEach((local, h) => {
        if (v.op === "input") emitSplat(this.c, v.dtype as Dtype, firstPointer + Number(v.imm), 0);
        else this.emitValue(v, h, (a, part) => (this.fixed.get(a) as number[])[part] as number);
        this.c.set(local);
      });
      this.fixed.set(v, locals);
    }
  }
  private newVector(): number {
    return this.firstVector + this.vectors++;
  }
  private emitValue(v: Value, h: number, local: (a: Value, part: number) => number): void {
    emitOp(this.c, v, h, (i, part) => this.c.get(local(v.args[i] as Value, part)));
  }

  /** lCount elements from the pointers on: unrolled blocks, blocks of four, then one by one, so that nothing beyond the arrays is touched. */
  private emitElements(): void {
    const n = weigh((this.common ?? this.plan).outputs);
    const copies = n <= 96 ? 4 : n <= 400 ? 2 : 1;
    this.emitLoop(4 * copies, copies);
    if (copies > 1) this.emitLoop(4, 1);
    this.emitLoop(1, 1);
  }
  private emitLoop(step: number, copies: number): void {
    const { c, plan } = this;
    c.op(op.block, 0x40);
    c.get(lCount);
    c.i32(step);
    c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
    this.emitBlock(step, copies);
    const advance = (pointer: number, bytes: number): void => {
      c.getPlus(pointer, bytes * step);
      c.set(pointer);
    };
    plan.access.forEach((m, i) => {
      if (m === "unit") advance(firstPointer + i, plan.inputBytes[i] as number);
    });
    plan.outputs.forEach((o, j) => {
      advance(firstPointer + plan.access.length + j, o.bytes);
    });
    c.getPlus(lCount, -step);
    c.tee(lCount);
    c.i32(step);
    c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
  }

  /** One iteration: in the common form, and, where something rare is found before the stores, again in the whole one. */
  private emitBlock(step: number, copies: number): void {
    const { c, common, plan } = this;
    if (!common) {
      this.emitForm(step, copies, this.order, plan.outputs, []);
      return;
    }
    c.op(op.block, 0x40, op.block, 0x40);
    this.emitForm(step, copies, this.commonOrder, common.outputs, common.unless);
    c.op(op.br, 1, op.end);
    // Inputs that move while they are read go back.
    plan.access.forEach((m, i) => {
      if (m !== "gather") return;
      c.get(firstPointer + i);
      c.get(this.gatherLocal[i] as number);
      c.i32(step);
      c.op(op.i32_mul, op.i32_sub);
      c.set(firstPointer + i);
    });
    this.emitForm(step, copies, this.order, plan.outputs, []);
    c.op(op.end);
  }
  /**
   * Copies are interleaved operation by operation and all stores come last; locals are reused as soon as their value is dead, because each local that is set in a loop
   * costs the compiler a phi. Leaves the innermost block instead of storing where one of `unless` holds.
   */
  private emitForm(step: number, copies: number, order: readonly Value[], outputs: readonly Stored[], unless: readonly Value[]): void {
    const nodes = order.filter((v) => this.level.get(v) === element);
    const last = new Map<Value, Value>();
    for (const v of nodes) for (const a of v.args) last.set(a, v);
    const results = new Set([...outputs.map((o) => o.value), ...unless]);
    for (const v of results) last.delete(v);
    const places = Array.from({ length: copies }, () => new Map<Value, number[]>());
    for (const v of nodes) {
      const dead = [...new Set(v.args)].filter((a) => last.get(a) === v && this.level.get(a) === element);
      for (let k = 0; k < copies; k++) {
        const mine = places[k] as Map<Value, number[]>;
        const local = (a: Value, part: number): number => ((this.fixed.get(a) ?? mine.get(a)) as number[])[part] as number;
        if (v.op === "input") {
          mine.set(v, this.emitInput(v, step, k));
          continue;
        }
        const n = parts(v.type);
        for (let h = 0; h < n; h++) this.emitValue(v, h, local);
        for (const a of dead) this.free.push(...(mine.get(a) as number[]));
        const to = Array.from({ length: n }, () => this.free.pop() ?? this.newVector());
        for (let h = n - 1; h >= 0; h--) this.c.set(to[h] as number);
        mine.set(v, to);
      }
    }
    unless.forEach((v, i) => {
      for (let k = 0; k < copies; k++) {
        this.c.get(((this.fixed.get(v) ?? places[k]?.get(v)) as number[])[0] as number);
        if (i + k > 0) this.c.simd(simd.or);
      }
    });
    if (unless.length > 0) {
      this.c.simd(simd.any_true);
      this.c.op(op.br_if, 0);
    }
    outputs.forEach((o, j) => {
      for (let k = 0; k < copies; k++) {
        const locals = (this.fixed.get(o.value) ?? places[k]?.get(o.value)) as number[];
        emitStore(this.c, o.bytes, firstPointer + this.plan.access.length + j, step === 1, 4 * k * o.bytes, locals);
      }
    });
    for (const mine of places) for (const v of results) this.free.push(...(mine.get(v) ?? []));
  }
  private emitInput(v: Value, step: number, copy: number): number[] {
    const { c } = this;
    const i = Number(v.imm);
    const dtype = v.dtype as Dtype;
    const pointer = firstPointer + i;
    const locals = Array.from({ length: parts(v.type) }, () => this.free.pop() ?? this.newVector());
    const gather = this.plan.access[i] === "gather" ? (this.gatherLocal[i] as number) : undefined;
    locals.forEach((local, h) => {
      if (step === 1) emitSplat(c, dtype, pointer, 0);
      else if (gather !== undefined) emitGather(c, dtype, pointer, gather, local);
      else emitLoad(c, dtype, pointer, 4 * copy * dtype.size + 16 * h);
      if (step === 1 || gather === undefined) c.set(local);
    });
    if (step === 1 && gather !== undefined) movePointer(c, pointer, gather);
    return locals;
  }
}

/** pointer += stride */
export function movePointer(c: Code, pointer: number, stride: number): void {
  c.get(pointer);
  c.get(stride);
  c.op(op.i32_add);
  c.set(pointer);
}

export function constBytes(v: Value): Uint8Array {
  const out = new DataView(new ArrayBuffer(16));
  for (let i = 0; i < 16; i += isWide(v.type) ? 8 : 4) {
    switch (v.type) {
      case "f32": out.setFloat32(i, Number(v.imm), true); break;
      case "f64": out.setFloat64(i, Number(v.imm), true); break;
      case "i64": case "u64": out.setBigUint64(i, BigInt.asUintN(64, BigInt(v.imm)), true); break;
      case "bool": out.setInt32(i, v.imm ? -1 : 0, true); break;
      default: out.setInt32(i, Number(v.imm), true);
    }
  }
  return new Uint8Array(out.buffer);
}

/** Four elements one after another (of 8-byte types: two). */
export function emitLoad(c: Code, dtype: Dtype, pointer: number, offset: number): void {
  c.get(pointer);
  switch (dtype.size) {
    case 1:
      c.simd(simd.load32_zero);
      c.offset(offset);
      c.simd(dtype === int8 ? simd.i16x8_extend_low_i8_s : simd.i16x8_extend_low_i8_u);
      c.simd(dtype === int8 ? simd.i32x4_extend_low_i16_s : simd.i32x4_extend_low_i16_u);
      return;
    case 2: c.simd(dtype === int16 ? simd.load16x4_s : simd.load16x4_u); break;
    default: c.simd(simd.load);
  }
  c.offset(offset);
}

/** One element in all lanes. */
export function emitSplat(c: Code, dtype: Dtype, pointer: number, offset: number): void {
  c.get(pointer);
  if (dtype.size >= 4) {
    c.simd(dtype.size === 8 ? simd.load64_splat : simd.load32_splat);
    c.offset(offset);
    return;
  }
  c.op(dtype.size === 1 ? op.i32_load8_u : op.i32_load16_u);
  c.offset(offset);
  c.simd(simd.i32x4_splat);
  emitSignExtension(c, dtype);
}
function emitSignExtension(c: Code, dtype: Dtype): void {
  if (dtype !== int8 && dtype !== int16) return;
  const unused = 32 - 8 * dtype.size;
  c.i32(unused);
  c.simd(simd.i32x4_shl);
  c.i32(unused);
  c.simd(simd.i32x4_shr_s);
}

/** Four elements (of 8-byte types: two) that lie `stride` bytes apart; the pointer moves past them. */
export function emitGather(c: Code, dtype: Dtype, pointer: number, stride: number, to: number): void {
  const lanes = dtype.size === 8 ? 2 : 4;
  c.get(pointer);
  if (dtype.size >= 4) {
    c.simd(dtype.size === 8 ? simd.load64_splat : simd.load32_splat);
    c.offset(0);
  } else {
    c.op(dtype.size === 1 ? op.i32_load8_u : op.i32_load16_u);
    c.offset(0);
    c.simd(simd.i32x4_splat);
  }
  c.set(to);
  for (let lane = 1; lane < lanes; lane++) {
    c.get(pointer);
    c.get(stride);
    c.op(op.i32_add);
    c.tee(pointer);
    c.get(to);
    // Bytes of the lane beyond a small element are already 0.
    c.simd(dtype.size === 8 ? simd.load64_lane : dtype.size === 4 ? simd.load32_lane : dtype.size === 2 ? simd.load16_lane : simd.load8_lane);
    c.offset(0);
    c.byte(dtype.size < 4 ? (4 / dtype.size) * lane : lane);
    if (lane < lanes - 1) c.set(to);
  }
  emitSignExtension(c, dtype);
  c.set(to);
  movePointer(c, pointer, stride);
}

const lowBytes = [0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12];
const lowShorts = [0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13];

/** The low bytes of four elements, or of the first one. */
export function emitStore(c: Code, bytes: number, pointer: number, single: boolean, offset: number, locals: readonly number[]): void {
  const [low, high] = locals as [number, number];
  c.get(pointer);
  c.get(low);
  if (bytes >= 4) {
    if (single) {
      c.simd(bytes === 8 ? simd.store64_lane : simd.store32_lane);
      c.offset(offset);
      c.byte(0);
      return;
    }
    c.simd(simd.store);
    c.offset(offset);
    if (bytes === 4) return;
    c.get(pointer);
    c.get(high);
    c.simd(simd.store);
    c.offset(offset + 16);
    return;
  }
  if (!single) {
    c.get(low);
    c.shuffle(bytes === 1 ? lowBytes : lowShorts);
  }
  if (single) c.simd(bytes === 1 ? simd.store8_lane : simd.store16_lane);
  else c.simd(bytes === 1 ? simd.store32_lane : simd.store64_lane);
  c.offset(offset);
  c.byte(0);
}
