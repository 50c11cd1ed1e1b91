/**
 * Loops of row kernels for WebAssembly. One unit of work is a row (or a chunk of one): pass after pass over its elements, each for the reductions that need no other
 * ones than those of earlier passes, then a pass that writes elements. Values that are dear to compute and needed again are kept in the thread's scratch memory.
 */
import { engine } from "../core/engine.ts";
import type { Dtype } from "../core/dtype.ts";
import { type ScalarType, type Value, isWide, reachable } from "../core/expr.ts";
import { type Access, constBytes, emitGather, emitLoad, emitSplat, emitStore, movePointer } from "./kernel.ts";
import { type PushArg, emitOp, parts, shiftCount } from "./lanes.ts";
import type { Stored } from "./lower.ts";
import { FirstBest, Fold, type Reducer, identityOf } from "./rows-reduce.ts";
import type { RowRule } from "./rows.ts";
import { type UnitLocals, loadWord, placeChunk, placeRow } from "./places.ts";
import { Code, kernelModule, op, simd } from "./wasm.ts";

export interface LoweredReduce {
  readonly rule: RowRule;
  /** What is reduced, lowered; its type is that of the accumulators. */
  readonly value: Value;
  /** With the rule `pick`: number of the element, lowered. */
  readonly at?: Value;
  /** The result as the accumulators give it, and the bits that it is stored as, a lowered formula of `raw`. */
  readonly raw: Value;
  readonly bits: Value;
  /** The input node that stands for those bits in later formulas. */
  readonly result: Value;
}
export interface LoweredOutput extends Stored {
  readonly perRow: boolean;
}
/** What a kernel is made for. No sizes: they are arguments. */
export interface RowPlan {
  /** In the order of passes; `passes` cuts them. */
  readonly passes: readonly (readonly LoweredReduce[])[];
  readonly outputs: readonly LoweredOutput[];
  readonly access: readonly Access[];
  readonly inputBytes: readonly number[];
  /** Number of dimensions around the row. */
  readonly outer: number;
  /** Units are chunks of rows, and outputs are one element per chunk. */
  readonly chunked: boolean;
}

/** Longest row (or chunk of one) that a unit takes: what is kept of its elements must fit into scratch memory. */
export const longestRow = 16384;
const slotBytes = 8 * longestRow;
const mostSlots = 2;
/** Where in scratch memory accumulators go (see `Fold`): behind the slots. */
const spillAt = mostSlots * slotBytes;
/** Instructions per four elements from which on a value is rather stored than computed again. */
const dear = 8;

/**
 * Words of the argument block: input pointers, output pointers, elements of a row; of chunked kernels elements per chunk and chunks per row; the byte stride of each
 * gathered input; the outer dimensions but the first; the outer byte strides of each input that is not read once.
 */
export function rowArguments({ access, outputs, outer, chunked }: { readonly access: readonly Access[]; readonly outputs: { readonly length: number }; readonly outer: number; readonly chunked: boolean }): { size: number; gather: number; dims: number; strides: number } {
  const size = access.length + outputs.length;
  const gather = size + (chunked ? 3 : 1);
  const dims = gather + access.filter((m) => m === "gather").length;
  return { size, gather, dims, strides: dims + Math.max(0, outer - 1) };
}

/** Number of vector instructions per four elements, all passes together. */
export const weighRows = (plan: RowPlan): number => new RowEmitter(plan).weight();
export const emitRowKernel = (plan: RowPlan): Uint8Array => new RowEmitter(plan).module();

const pBegin = 1;
const pEnd = 2;
const lSize = 3;
/** Elements of the unit, and those that are left in a loop. */
const lLength = 4;
const lCount = 5;
const lRow = 6;
const lRest = 7;
const lIndex = 8;
const lRounds = 9;
const lAt = 10;
const lChunk = 11;
const lScratch = 12;
const unitLocals: UnitLocals = { unit: pBegin, size: lSize, chunk: lChunk, row: lRow, rest: lRest, index: lIndex, at: lAt, count: lLength };
const firstPointer = 13;
/** When a value is known: before everything, at the start of a row, or behind a pass. */
const once = -1;
const rowStart = 0;

interface Pass {
  readonly reduces: readonly LoweredReduce[];
  /** Values per element that are computed (or loaded) here, arguments first. */
  readonly nodes: readonly Value[];
  /** Those that an earlier pass has kept. */
  readonly loaded: ReadonlySet<Value>;
}
/** A value kept from one pass for later ones. */
interface Slot {
  readonly index: number;
  readonly pass: number;
}

class RowEmitter {
  private readonly c = new Code();
  private readonly plan: RowPlan;
  private readonly words: ReturnType<typeof rowArguments>;
  /** Every value, arguments first. */
  private readonly order: readonly Value[];
  private readonly perElement = new Set<Value>();
  private readonly known = new Map<Value, number>();
  private readonly passes: Pass[] = [];
  private readonly slots = new Map<Value, Slot>();
  private readonly used = new Set<Value>();
  /** Locals of values that are the same for all elements of a row. */
  private readonly fixed = new Map<Value, readonly number[]>();
  /** Inputs of which the next row is loaded ahead, each with the local that points into it. */
  private readonly ahead = new Map<number, number>();
  private readonly i32Locals: number;
  private readonly firstVector: number;
  private vectors = 0;
  private readonly free: number[] = [];

  constructor(plan: RowPlan) {
    this.plan = plan;
    this.words = rowArguments(plan);
    const reduces = plan.passes.flat();
    this.order = reachable([...reduces.flatMap((r) => (r.at ? [r.value, r.at] : [r.value])), ...plan.outputs.map((o) => o.value)]);
    this.classify();
    plan.passes.forEach((reduces, i) => {
      this.addPass(i, reduces, reduces.filter((r) => !r.at).map((r) => r.value));
    });
    const elements = plan.outputs.filter((o) => !o.perRow);
    if (elements.length > 0) this.addPass(plan.passes.length, [], elements.map((o) => o.value));
    this.markUsed();
    let next = firstPointer + 3 * plan.access.length + plan.outputs.length + mostSlots;
    for (const i of this.loadedAhead()) this.ahead.set(i, next++);
    this.firstVector = next;
    this.i32Locals = this.firstVector - 3;
  }

  // ---- what is computed where

  private classify(): void {
    const results = new Map<Value, number>();
    this.plan.passes.forEach((reduces, i) => {
      for (const r of reduces) results.set(r.result, i + 1);
    });
    for (const v of this.order) {
      const own = results.get(v);
      const access = v.op === "input" && own === undefined ? this.plan.access[Number(v.imm)] : undefined;
      if (access === "unit" || access === "gather" || v.args.some((a) => this.perElement.has(a))) this.perElement.add(v);
      let at = own ?? (access === undefined || access === "once" ? once : rowStart);
      for (const a of v.args) at = Math.max(at, this.known.get(a) as number);
      this.known.set(v, at);
    }
  }
  /** Instructions for the values per element that `v` is made of. */
  private cost(v: Value): number {
    const cone = new Set<Value>([v]);
    for (const x of cone) for (const a of x.args) if (this.perElement.has(a)) cone.add(a);
    let n = 0;
    for (const x of cone) n += x.op === "input" ? 0 : weigh1(x);
    return n;
  }
  private addPass(index: number, reduces: readonly LoweredReduce[], roots: readonly Value[]): void {
    const nodes = new Set<Value>();
    const loaded = new Set<Value>();
    const visit = (v: Value): void => {
      if (!this.perElement.has(v) || nodes.has(v)) return;
      nodes.add(v);
      if (this.keep(v, index)) loaded.add(v);
      else v.args.forEach(visit);
    };
    roots.forEach(visit);
    this.passes.push({ reduces, nodes: [...nodes].sort((a, b) => a.id - b.id), loaded });
  }
  /** Whether pass `index` finds the value kept by an earlier one. */
  private keep(v: Value, index: number): boolean {
    if (v.op === "input") return false;
    const slot = this.slots.get(v);
    if (slot) return slot.pass < index;
    const pass = this.passes.findIndex((p) => p.nodes.includes(v));
    if (pass < 0 || this.slots.size >= mostSlots || this.cost(v) < dear) return false;
    this.slots.set(v, { index: this.slots.size, pass });
    return true;
  }
  /**
   * Inputs that lie in rows of their own and come from far at the first of several passes. The last, if it finds its elements near and has much to compute, loads those
   * of the next row meanwhile (where it has not, that gained nothing).
   */
  private loadedAhead(): Set<number> {
    const { passes, plan } = this;
    const last = passes[plan.passes.length - 1]?.nodes.reduce((n, v) => n + weigh1(v), 0) ?? 0;
    if (plan.chunked || plan.outer !== 1 || plan.passes.length < 2 || last < 2 * dear) return new Set();
    return new Set(passes[0]?.nodes.filter((v) => v.op === "input" && plan.access[Number(v.imm)] === "unit").map((v) => Number(v.imm)));
  }
  /** Values that are needed as such; the count of a constant shift is part of the instruction. */
  private markUsed(): void {
    for (const v of this.order) for (const a of shiftCount(v) === undefined ? v.args : v.args.slice(0, 1)) this.used.add(a);
    for (const r of this.plan.passes.flat()) {
      this.used.add(r.value);
      if (r.at) this.used.add(r.at);
    }
    for (const o of this.plan.outputs) this.used.add(o.value);
  }
  weight(): number {
    let n = 0;
    for (const p of this.passes) {
      for (const v of p.nodes) n += p.loaded.has(v) ? 1 : weigh1(v);
      n += 2 * p.reduces.length;
    }
    return n;
  }

  // ---- locals

  private base(i: number): number {
    return firstPointer + i;
  }
  private cursor(i: number): number {
    return firstPointer + this.plan.access.length + i;
  }
  private gather(i: number): number {
    return firstPointer + 2 * this.plan.access.length + i;
  }
  private out(j: number): number {
    return firstPointer + 3 * this.plan.access.length + j;
  }
  private slot(v: Value): number {
    return firstPointer + 3 * this.plan.access.length + this.plan.outputs.length + (this.slots.get(v) as Slot).index;
  }
  private readonly newVector = (): number => this.firstVector + this.vectors++;
  private loadWord(word: number, local: number): void {
    loadWord(this.c, word, local);
  }

  // ---- rows

  module(): Uint8Array {
    const { c, words, plan } = this;
    this.loadWord(words.size, lSize);
    if (plan.chunked) this.loadWord(words.size + 1, lChunk);
    let gathers = 0;
    plan.access.forEach((m, i) => {
      if (m === "gather") this.loadWord(words.gather + gathers++, this.gather(i));
      if (m === "once") this.loadWord(i, this.base(i));
    });
    this.emitFixed(once);
    c.op(op.global_get, 0);
    c.set(lScratch);
    c.op(op.loop, 0x40);
    this.placeUnit();
    this.emitFixed(rowStart);
    this.startAhead();
    this.passes.forEach((p, i) => {
      if (p.reduces.length === 0) return;
      for (const r of p.reduces) if (r.at) this.publish(r, this.emitPick(r.value, r.at));
      const reduces = p.reduces.filter((r) => !r.at);
      if (reduces.length > 0) this.emitPass({ ...p, reduces }, i);
      this.emitFixed(i + 1);
    });
    this.emitOutputs();
    c.getPlus(pBegin, 1);
    c.tee(pBegin);
    c.get(pEnd);
    c.op(op.i32_lt_u, op.br_if, 0, op.end);
    return kernelModule(c, this.i32Locals, this.vectors, true);
  }
  /** Row, length and input pointers of unit pBegin. */
  private placeUnit(): void {
    const { c, words, plan } = this;
    if (!plan.chunked) {
      c.get(pBegin);
      c.set(lRow);
      c.get(lSize);
      c.set(lLength);
      this.placeRow();
      return;
    }
    placeChunk(c, unitLocals, words.size + 2);
    this.placeRow();
    plan.access.forEach((m, i) => {
      if (m !== "unit" && m !== "gather") return;
      c.get(this.base(i));
      c.get(lAt);
      if (m === "gather") c.get(this.gather(i));
      else c.i32(plan.inputBytes[i] as number);
      c.op(op.i32_mul, op.i32_add);
      c.set(this.base(i));
    });
  }
  /** Input pointers to the start of row lRow. */
  private placeRow(): void {
    const { c, words, plan } = this;
    placeRow(c, unitLocals, { outer: plan.outer, dims: words.dims, strides: words.strides, access: plan.access, base: (i) => this.base(i) });
  }

  // ---- values of a row

  private emitFixed(at: number): void {
    for (const v of this.order) if (this.known.get(v) === at && !this.perElement.has(v) && this.used.has(v) && !this.fixed.has(v)) this.fix(v);
  }
  private fix(v: Value): void {
    const { c } = this;
    if (v.op === "const") {
      c.v128(constBytes(v));
      const local = this.newVector();
      c.set(local);
      this.fixed.set(v, [local, local]);
      return;
    }
    const locals = Array.from({ length: parts(v.type) }, this.newVector);
    locals.forEach((local, h) => {
      if (v.op === "input") emitSplat(c, v.dtype as Dtype, this.base(Number(v.imm)), 0);
      else emitOp(c, v, h, (i, part) => c.get((this.fixed.get(v.args[i] as Value) as readonly number[])[part] as number));
      c.set(local);
    });
    this.fixed.set(v, locals);
  }
  /** A constant in a local that is set where it is first asked for: only for code outside of the element loops. */
  private constant(v: Value): number {
    const known = this.fixed.get(v);
    if (known) return known[0] as number;
    this.c.v128(constBytes(v));
    const local = this.newVector();
    this.c.set(local);
    return local;
  }

  // ---- passes

  private emitPass(p: Pass, index: number): void {
    const { c } = this;
    const wide = isWide((p.reduces[0] as LoweredReduce).value.type);
    const reducers = p.reduces.map((r) => this.reducer(r));
    p.reduces.forEach((r, k) => {
      const reducer = reducers[k];
      if (reducer instanceof FirstBest) this.emitFirst(p, r.value, reducer);
    });
    this.rewind(p, index);
    for (const r of reducers) r.start();
    const round = wide ? 8 : 16;
    c.op(op.block, 0x40);
    c.get(lCount);
    c.i32(round);
    c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
    this.emitRounds(p, index, round, reducers);
    c.get(lCount);
    c.i32(round);
    c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
    for (const r of reducers) r.endRounds();
    const fours = (local: (v: Value, h: number) => number): void => {
      p.reduces.forEach((r, k) => {
        reducers[k]?.four(Array.from({ length: parts(r.value.type) }, (_, h) => local(r.value, h)));
      });
    };
    if (this.pairs(p) && !wide) this.emitTail(p, index, 4, 2, fours);
    this.emitTail(p, index, 4, 1, fours);
    this.emitTail(p, index, 1, 1, (local) => {
      p.reduces.forEach((r, k) => {
        reducers[k]?.one(local(r.value, 0));
      });
    });
    p.reduces.forEach((r, k) => {
      this.publish(r, (reducers[k] as Reducer).finish());
    });
  }
  private reducer({ rule, value: { type } }: LoweredReduce): Reducer {
    const identity = this.constant(identityOf(rule, type));
    if (rule !== "argmax" && rule !== "argmin") return new Fold(this.c, rule, type, { identity, zero: this.zero(), spill: { pointer: lScratch, offset: spillAt } }, this.newVector);
    const offsets = FirstBest.constants.map((lanes) => {
      this.c.v128(new Uint8Array(Int32Array.from(lanes).buffer));
      const local = this.newVector();
      this.c.set(local);
      return local;
    });
    return new FirstBest(this.c, rule, type, identity, offsets, this.newVector);
  }
  private zero(): number {
    this.c.v128(new Uint8Array(16));
    const local = this.newVector();
    this.c.set(local);
    return local;
  }
  /** The value of one element, in all lanes of a local. */
  private emitPick(value: Value, at: Value): number {
    const { c, plan } = this;
    const nodes = reachable([value]).filter((v) => this.perElement.has(v));
    c.get((this.fixed.get(at) as readonly number[])[0] as number);
    c.lane(simd.i32x4_extract, 0);
    c.set(lRounds);
    for (const v of nodes) {
      if (v.op !== "input") continue;
      const i = Number(v.imm);
      c.get(this.base(i));
      c.get(lRounds);
      if (plan.access[i] === "gather") c.get(this.gather(i));
      else c.i32(plan.inputBytes[i] as number);
      c.op(op.i32_mul, op.i32_add);
      c.set(this.cursor(i));
    }
    const to = this.newVector();
    this.emitBlock({ reduces: [], nodes, loaded: new Set() }, 1, 1, 0, [value], (_k, local) => {
      c.get(local(value, 0));
      c.set(to);
    });
    return to;
  }
  /** The first element's value, for the one place where a NaN counts. */
  private emitFirst(p: Pass, value: Value, reducer: FirstBest): void {
    this.rewind(p, undefined);
    this.emitBlock(p, 1, 1, 0, [value], (_k, local) => reducer.begin(local(value, 0)));
  }
  /** Cursors to the start of the row. `index`: the pass, to also place those of kept values; the first element alone is not kept. */
  private rewind(p: Pass, index: number | undefined): void {
    const { c, plan } = this;
    c.get(lLength);
    c.set(lCount);
    for (const v of p.nodes) {
      if (v.op !== "input") continue;
      const i = Number(v.imm);
      if (plan.access[i] !== "unit" && plan.access[i] !== "gather") continue;
      c.get(this.base(i));
      c.set(this.cursor(i));
    }
    for (const [v, slot] of this.slots) {
      if (!p.loaded.has(v) && slot.pass !== index) continue;
      c.getPlus(lScratch, slot.index * slotBytes);
      c.set(this.slot(v));
    }
  }
  /** lRounds = min(rounds left, 32) rounds, then the pairwise addition. */
  private emitRounds(p: Pass, index: number, round: number, reducers: readonly Reducer[]): void {
    const { c } = this;
    const shift = Math.log2(round);
    c.get(lCount);
    c.i32(shift);
    c.op(op.i32_shr_u);
    c.tee(lRounds);
    c.i32(32);
    c.get(lRounds);
    c.i32(32);
    c.op(op.i32_lt_u, op.select);
    c.set(lRounds);
    c.get(lCount);
    c.get(lRounds);
    c.i32(shift);
    c.op(op.i32_shl, op.i32_sub);
    c.set(lCount);
    for (const r of reducers) r.startBlock();
    c.op(op.loop, 0x40);
    const copies = Math.min(round / 4, this.copies(p));
    const values = p.reduces.map((r) => r.value);
    for (let first = 0; first < round; first += 4 * copies) {
      this.emitBlock(p, 4, copies, first, [...values, ...this.storedBy(index)], (k, local) => {
        p.reduces.forEach((r, n) => {
          const count = parts(r.value.type);
          for (let h = 0; h < count; h++) reducers[n]?.round(count * (first / 4 + k) + h, local(r.value, h));
        });
        this.storeKept(index, first / 4 + k, false, local);
      });
    }
    for (const r of reducers) r.endRound();
    if (index === this.plan.passes.length - 1) this.loadAhead(round);
    this.advance(p, index, round);
    c.getPlus(lRounds, -1);
    c.tee(lRounds);
    c.op(op.br_if, 0, op.end);
    for (const r of reducers) r.endBlock();
  }
  /** Pointers to the next row, or, at the last one of the call, to this row. */
  private startAhead(): void {
    const { c, plan, words } = this;
    const strided = plan.access.flatMap((m, i) => (m === "once" ? [] : [i]));
    for (const [i, pointer] of this.ahead) {
      c.get(this.base(i));
      this.loadWord(words.strides + strided.indexOf(i), pointer);
      c.get(pointer);
      c.i32(0);
      c.getPlus(pBegin, 1);
      c.get(pEnd);
      c.op(op.i32_lt_u, op.select, op.i32_add);
      c.set(pointer);
    }
  }
  /** One load per cache line (of 64 bytes); what it gives is not used. */
  private loadAhead(elements: number): void {
    const { c, plan } = this;
    for (const [i, pointer] of this.ahead) {
      const bytes = elements * (plan.inputBytes[i] as number);
      for (let at = 0; at < bytes; at += 64) {
        c.get(pointer);
        c.op(op.i32_load);
        c.offset(at);
        c.op(op.drop);
      }
      c.getPlus(pointer, bytes);
      c.set(pointer);
    }
  }
  /** What is left: `copies` times `step` elements at a time. */
  private emitTail(p: Pass, index: number, step: 1 | 4, copies: number, use: (local: (v: Value, h: number) => number) => void): void {
    this.emitLoop(p, index, step, copies, [...p.reduces.map((r) => r.value), ...this.storedBy(index)], (k, local) => {
      use(local);
      this.storeKept(index, k, step === 1, local);
    });
  }
  private emitLoop(p: Pass, index: number, step: number, copies: number, roots: readonly Value[], use: (k: number, local: (v: Value, h: number) => number) => void): void {
    const { c } = this;
    const elements = step * copies;
    c.op(op.block, 0x40);
    c.get(lCount);
    c.i32(elements);
    c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
    this.emitBlock(p, step, copies, 0, roots, use);
    this.advance(p, index, elements);
    c.getPlus(lCount, -elements);
    c.tee(lCount);
    c.i32(elements);
    c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
  }
  private copies(p: Pass): number {
    const n = weighPass(p);
    return n <= 96 ? 4 : n <= 400 ? 2 : 1;
  }
  /**
   * Whether what is left of a row is worth a loop of pairs of vectors: where the chain of instructions of one alone is long. Not where V8 pairs vectors itself: it gives wrong
   * results for these loops (Node 24).
   */
  private pairs(p: Pass): boolean {
    const n = weighPass(p);
    return !engine.pairing && n >= 16 && n <= 400;
  }
  /** Values that a pass keeps for later ones. */
  private storedBy(index: number): Value[] {
    return [...this.slots].filter(([, s]) => s.pass === index).map(([v]) => v);
  }
  private storeKept(index: number, k: number, single: boolean, local: (v: Value, h: number) => number): void {
    for (const v of this.storedBy(index)) {
      const bytes = 4 * parts(v.type);
      emitStore(this.c, bytes, this.slot(v), single, 4 * k * bytes, Array.from({ length: parts(v.type) }, (_, h) => local(v, h)));
    }
  }
  private advance(p: Pass, index: number, elements: number): void {
    const { c, plan } = this;
    const by = (local: number, bytes: number): void => {
      c.getPlus(local, bytes * elements);
      c.set(local);
    };
    for (const v of p.nodes) if (v.op === "input" && plan.access[Number(v.imm)] === "unit") by(this.cursor(Number(v.imm)), plan.inputBytes[Number(v.imm)] as number);
    for (const [v, s] of this.slots) if (p.loaded.has(v) || s.pass === index) by(this.slot(v), 4 * parts(v.type));
  }
  /** Makes the result of a reduction known to later formulas. */
  private publish(r: LoweredReduce, local: number): void {
    if (r.raw.type === "bool") {
      const bit = this.newVector();
      this.c.get(local);
      this.c.v128(new Uint8Array(Int32Array.from([1, 1, 1, 1]).buffer));
      this.c.simd(simd.and);
      this.c.set(bit);
      this.fixed.set(r.result, [bit, bit]);
      return;
    }
    this.fixed.set(r.raw, [local, local]);
    for (const v of reachable([r.bits])) if (!this.fixed.has(v)) this.fix(v);
    this.fixed.set(r.result, this.fixed.get(r.bits) as readonly number[]);
  }

  /**
   * One iteration. Copies are interleaved operation by operation; locals are reused as soon as their value is dead, because each local that is set in a loop costs the
   * compiler a phi. `step` 1: one element in all lanes.
   */
  private emitBlock(p: Pass, step: number, copies: number, first: number, roots: readonly Value[], use: (k: number, local: (v: Value, h: number) => number) => void): void {
    const { c } = this;
    const last = new Map<Value, Value>();
    for (const v of p.nodes) if (!p.loaded.has(v)) for (const a of v.args) last.set(a, v);
    for (const r of roots) last.delete(r);
    const places = Array.from({ length: copies }, () => new Map<Value, readonly number[]>());
    for (const v of p.nodes) {
      const leaf = v.op === "input" || p.loaded.has(v);
      const dead = leaf ? [] : [...new Set(v.args)].filter((a) => last.get(a) === v && this.perElement.has(a));
      for (let k = 0; k < copies; k++) {
        const mine = places[k] as Map<Value, readonly number[]>;
        const push: PushArg = (i, part) => c.get(((this.fixed.get(v.args[i] as Value) ?? mine.get(v.args[i] as Value)) as readonly number[])[part] as number);
        if (leaf) {
          mine.set(v, this.emitLeaf(v, p.loaded.has(v), step, first / 4 + k));
          continue;
        }
        const n = parts(v.type);
        for (let h = 0; h < n; h++) emitOp(c, v, h, push);
        for (const a of dead) this.free.push(...(mine.get(a) as readonly number[]));
        const to = Array.from({ length: n }, () => this.free.pop() ?? this.newVector());
        for (let h = n - 1; h >= 0; h--) c.set(to[h] as number);
        mine.set(v, to);
      }
    }
    for (let k = 0; k < copies; k++) use(k, (v, h) => ((this.fixed.get(v) ?? places[k]?.get(v)) as readonly number[])[h] as number);
    for (const mine of places) for (const r of new Set(roots)) this.free.push(...(mine.get(r) ?? []));
  }
  /** Loads elements of an input or of a kept value. */
  private emitLeaf(v: Value, kept: boolean, step: number, copy: number): readonly number[] {
    const { c, plan } = this;
    const i = Number(v.imm);
    const locals = Array.from({ length: parts(v.type) }, () => this.free.pop() ?? this.newVector());
    const pointer = kept ? this.slot(v) : this.cursor(i);
    const stride = !kept && plan.access[i] === "gather" ? this.gather(i) : undefined;
    locals.forEach((local, h) => {
      if (stride !== undefined && step > 1) {
        emitGather(c, v.dtype as Dtype, pointer, stride, local);
        return;
      }
      if (kept) this.loadKept(v.type, pointer, step, copy, h);
      else if (step === 1) emitSplat(c, v.dtype as Dtype, pointer, 0);
      else emitLoad(c, v.dtype as Dtype, pointer, 4 * copy * (v.dtype as Dtype).size + 16 * h);
      c.set(local);
    });
    if (stride !== undefined && step === 1) movePointer(c, pointer, stride);
    return locals;
  }
  private loadKept(type: ScalarType, pointer: number, step: number, copy: number, h: number): void {
    const { c } = this;
    c.get(pointer);
    if (step === 1) {
      c.simd(isWide(type) ? simd.load64_splat : simd.load32_splat);
      c.offset(0);
      return;
    }
    c.simd(simd.load);
    c.offset(16 * parts(type) * copy + 16 * h);
  }

  // ---- outputs

  private emitOutputs(): void {
    const { c, plan } = this;
    const p = this.passes[plan.passes.length];
    plan.outputs.forEach((o, j) => {
      this.loadWord(plan.access.length + j, this.out(j));
      c.get(this.out(j));
      c.get(o.perRow ? pBegin : lRow);
      if (!o.perRow) {
        c.get(lSize);
        c.op(op.i32_mul);
      }
      c.i32(o.bytes);
      c.op(op.i32_mul, op.i32_add);
      c.set(this.out(j));
    });
    plan.outputs.forEach((o, j) => {
      if (o.perRow) emitStore(c, o.bytes, this.out(j), true, 0, this.fixed.get(o.value) as readonly number[]);
    });
    if (!p) return;
    const index = plan.passes.length;
    this.rewind(p, index);
    const roots = plan.outputs.filter((o) => !o.perRow).map((o) => o.value);
    const copies = this.copies(p);
    for (const [step, n] of [...(copies > 1 ? [[4 * copies, copies]] : []), ...(copies > 2 && this.pairs(p) ? [[8, 2]] : []), [4, 1], [1, 1]] as [number, number][]) {
      this.emitLoopOut(p, index, step, n, roots);
    }
  }
  private emitLoopOut(p: Pass, index: number, step: number, copies: number, roots: readonly Value[]): void {
    const { c, plan } = this;
    const all: (() => void)[] = [];
    c.op(op.block, 0x40);
    c.get(lCount);
    c.i32(step);
    c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
    this.emitBlock(p, step, copies, 0, roots, (k, local) => {
      plan.outputs.forEach((o, j) => {
        if (!o.perRow) all.push(() => emitStore(c, o.bytes, this.out(j), step === 1, 4 * k * o.bytes, Array.from({ length: parts(o.value.type) }, (_, h) => local(o.value, h))));
      });
    });
    for (const store of all) store();
    this.advance(p, index, step);
    plan.outputs.forEach((o, j) => {
      if (o.perRow) return;
      c.getPlus(this.out(j), step * o.bytes);
      c.set(this.out(j));
    });
    c.getPlus(lCount, -step);
    c.tee(lCount);
    c.i32(step);
    c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
  }
}

const weighPass = ({ nodes }: Pass): number => nodes.reduce((n, v) => n + weigh1(v), 0);
const weigh1 = (v: Value): number => (v.op === "input" ? 1 : v.op === "const" ? 0 : (v.op === "div" || v.op === "sqrt" ? 3 : v.op === "quot" ? 20 : 1) * parts(v.type));
