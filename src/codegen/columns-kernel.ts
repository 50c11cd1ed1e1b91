/**
 * Loops of column kernels for WebAssembly: reductions along a dimension that is not the innermost one. A unit of work is a block of neighbouring columns (of a chunk of
 * the rows): four rows at a time are computed and added into accumulators that stay in the thread's scratch memory, pass after pass for reductions that need the
 * results of others. The order of additions is that of assembly/templates/reduce.ts, so results have the same bits as those of the hand-written kernels.
 */
import type { Dtype } from "../core/dtype.ts";
import { type Value, isFloatType, isWide, reachable } from "../core/expr.ts";
import { constBytes, emitGather, emitLoad, emitSplat, emitStore } from "./kernel.ts";
import { type PushArg, emitOp, parts, shiftCount } from "./lanes.ts";
import { loadWord, placeRow } from "./places.ts";
import type { LoweredOutput, LoweredReduce } from "./rows-kernel.ts";
import { combine, identityOf } from "./rows-reduce.ts";
import { Code, kernelModule, op, simd } from "./wasm.ts";

/** How an input is read: `element` one by one in the columns, `gather` with another stride there, `column` one per column, `row` one per row, `once` one for a whole unit. */
export type ColumnAccess = "element" | "gather" | "column" | "row" | "once";

/** What a kernel is made for. No sizes: they are arguments. */
export interface ColumnPlan {
  readonly passes: readonly (readonly LoweredReduce[])[];
  /** `perRow`: one element per column (and chunk). */
  readonly outputs: readonly LoweredOutput[];
  readonly access: readonly ColumnAccess[];
  readonly inputBytes: readonly number[];
  /** Number of dimensions around rows and columns. */
  readonly outer: number;
}

/** Most columns of a unit. */
export const widestBlock = 1024;
/** Bytes of scratch memory for what one reduction keeps of a block. */
const slotBytes = 8 * widestBlock;

const stepsRows = (m: ColumnAccess): boolean => m === "element" || m === "gather" || m === "row";
const hasElements = (outputs: readonly { readonly perRow: boolean }[]): boolean => outputs.some((o) => !o.perRow);

/**
 * Words of the argument block: input pointers, 0 (the start of the offsets below), output pointers; rows, columns, columns of a block, blocks, rows of a chunk, chunks; the row
 * strides in bytes of inputs that have one; the column strides of those that are gathered; the row stride of outputs of elements, in elements; the outer dimensions but
 * the first; the outer strides of inputs, in bytes, and of outputs of elements, in elements.
 */
export function columnArguments({ access, outputs }: { readonly access: readonly ColumnAccess[]; readonly outputs: readonly { readonly perRow: boolean }[] }, outer: number): {
  readonly zero: number; readonly out: number; readonly sizes: number; readonly rowStrides: number; readonly gathers: number; readonly outStride: number; readonly dims: number; readonly strides: number;
} {
  const zero = access.length;
  const sizes = zero + 1 + outputs.length;
  const rowStrides = sizes + 6;
  const gathers = rowStrides + access.filter(stepsRows).length;
  const outStride = gathers + access.filter((m) => m === "gather").length;
  const dims = outStride + Number(hasElements(outputs));
  return { zero, out: zero + 1, sizes, rowStrides, gathers, outStride, dims, strides: dims + Math.max(0, outer - 1) };
}

export const emitColumnKernel = (plan: ColumnPlan): Uint8Array => new ColumnEmitter(plan).module();
/** Number of vector instructions per four elements, all passes together. */
export const weighColumns = (plan: ColumnPlan): number => new ColumnEmitter(plan).weight();

const pBegin = 1;
const pEnd = 2;
const [lN, lInner, lWidth, lBlocks, lChunk, lChunks] = [3, 4, 5, 6, 7, 8];
const [lTall, lOuter, lRest, lIndex, lColumn, lFirst, lCount, lRows, lLeft] = [9, 10, 11, 12, 13, 14, 15, 16, 17];
/** Where in scratch memory 4-byte and 8-byte values of the next column lie. */
const [lNarrow, lWide] = [18, 19];
/** Number of the first element of the unit among the outputs of elements; their row stride. */
const [lElement, lOutStride] = [20, 21];
const firstPointer = 22;
const deepest = 4;

/** What a value depends on: bits. */
const [perRow, perColumn] = [1, 2];
const perElement = perRow | perColumn;

class ColumnEmitter {
  private readonly c = new Code();
  private readonly plan: ColumnPlan;
  private readonly words: ReturnType<typeof columnArguments>;
  private readonly order: readonly Value[];
  private readonly level = new Map<Value, number>();
  /** Number of each reduction, by the node of its result: its accumulators lie in slot 2k, its results in 2k + 1. */
  private readonly numbers = new Map<Value, number>();
  private readonly fixed = new Map<Value, readonly number[]>();
  private readonly used = new Set<Value>();
  private readonly withElements: boolean;
  private readonly firstVector: number;
  private vectors = 0;
  private readonly free: number[] = [];
  /** Which four of the columns at the cursors are computed. */
  private four = 0;

  constructor(plan: ColumnPlan) {
    this.plan = plan;
    this.words = columnArguments(plan, plan.outer);
    this.withElements = hasElements(plan.outputs);
    const reduces = plan.passes.flat();
    reduces.forEach((r, k) => this.numbers.set(r.result, k));
    this.order = reachable([...reduces.map((r) => r.value), ...plan.outputs.map((o) => o.value)]);
    for (const v of this.order) this.level.set(v, this.levelOf(v));
    for (const v of this.order) for (const a of shiftCount(v) === undefined ? v.args : v.args.slice(0, 1)) this.used.add(a);
    for (const r of reduces) this.used.add(r.value);
    for (const o of plan.outputs) this.used.add(o.value);
    this.firstVector = firstPointer + plan.access.length * (3 + deepest) + plan.outputs.length * (1 + deepest);
  }
  private levelOf(v: Value): number {
    if (v.op === "input") {
      if (this.numbers.has(v)) return perColumn;
      const m = this.plan.access[Number(v.imm)];
      return m === "once" ? 0 : m === "row" ? perRow : m === "column" ? perColumn : perElement;
    }
    let level = 0;
    for (const a of v.args) level |= this.level.get(a) as number;
    return level;
  }
  weight(): number {
    let n = 0;
    for (const { values, reduces } of this.sweeps()) {
      for (const v of reachable(values)) if (this.level.get(v) === perElement) n += weigh1(v);
      n += 2 * reduces.length;
    }
    return n;
  }
  /** The passes over the elements: what each reduces and stores. Elements are stored as late as what reads them allows, so that an output may lie over an input. */
  private sweeps(): { reduces: readonly LoweredReduce[]; stores: readonly number[]; values: readonly Value[] }[] {
    const { passes, outputs } = this.plan;
    const sweeps = passes.map((reduces) => ({ reduces, stores: [] as number[], values: reduces.map((r) => r.value) }));
    const elements = outputs.flatMap((o, j) => (o.perRow ? [] : [j]));
    if (elements.length === 0) return sweeps;
    const values = elements.map((j) => (outputs[j] as LoweredOutput).value);
    const last = sweeps.at(-1);
    const own = new Set(last?.reduces.map((r) => r.result));
    if (!last || reachable(values).some((v) => own.has(v))) return [...sweeps, { reduces: [], stores: elements, values }];
    last.stores.push(...elements);
    last.values.push(...values);
    return sweeps;
  }

  // ---- locals

  private base(i: number): number {
    return firstPointer + i;
  }
  private rowStride(i: number): number {
    return firstPointer + this.plan.access.length + i;
  }
  private gather(i: number): number {
    return firstPointer + 2 * this.plan.access.length + i;
  }
  private cursor(i: number, k: number): number {
    return firstPointer + (3 + k) * this.plan.access.length + i;
  }
  private out(j: number): number {
    return firstPointer + (3 + deepest) * this.plan.access.length + j;
  }
  private outCursor(j: number, k: number): number {
    return this.out(0) + (1 + k) * this.plan.outputs.length + j;
  }
  private readonly newVector = (): number => this.firstVector + this.vectors++;
  private loadWord(word: number, local: number): void {
    loadWord(this.c, word, local);
  }

  // ---- units

  module(): Uint8Array {
    const { c, plan, words } = this;
    [lN, lInner, lWidth, lBlocks, lChunk, lChunks].forEach((local, k) => this.loadWord(words.sizes + k, local));
    let strides = words.rowStrides;
    let gathers = words.gathers;
    plan.access.forEach((m, i) => {
      if (stepsRows(m)) this.loadWord(strides++, this.rowStride(i));
      if (m === "gather") this.loadWord(gathers++, this.gather(i));
    });
    if (this.withElements) this.loadWord(words.outStride, lOutStride);
    c.op(op.loop, 0x40);
    this.placeUnit();
    this.emitFixed(0);
    const sweeps = this.sweeps();
    for (const s of sweeps) {
      this.emitSweep(s.reduces, s.stores, s.values);
      this.publish(s.reduces);
    }
    this.emitColumnOutputs();
    c.getPlus(pBegin, 1);
    c.tee(pBegin);
    c.get(pEnd);
    c.op(op.i32_lt_u, op.br_if, 0, op.end);
    return kernelModule(c, this.firstVector - 3, this.vectors, true);
  }
  /** quotient = a / b, rest = a % b */
  private divide(a: number, b: number, quotient: number, rest: number): void {
    const { c } = this;
    c.get(a);
    c.get(a);
    c.get(b);
    c.op(op.i32_div_u);
    c.tee(quotient);
    c.get(b);
    c.op(op.i32_mul, op.i32_sub);
    c.set(rest);
  }
  /** to = min(width, all - at * width), at becomes at * width */
  private cut(at: number, width: number, all: number, to: number): void {
    const { c } = this;
    c.get(at);
    c.get(width);
    c.op(op.i32_mul);
    c.set(at);
    c.get(all);
    c.get(at);
    c.op(op.i32_sub);
    c.tee(to);
    c.get(width);
    c.get(to);
    c.get(width);
    c.op(op.i32_lt_u, op.select);
    c.set(to);
  }
  /** Block and chunk of unit pBegin, and where the inputs begin there. */
  private placeUnit(): void {
    const { c, plan, words } = this;
    this.divide(pBegin, lBlocks, lTall, lColumn);
    this.divide(lTall, lChunks, lOuter, lFirst);
    this.cut(lColumn, lWidth, lInner, lCount);
    this.cut(lFirst, lChunk, lN, lRows);
    const offsets = this.withElements ? ["element"] : [];
    const base = (i: number): number => (i === plan.access.length ? lElement : this.base(i));
    placeRow(c, { row: lOuter, rest: lRest, index: lIndex }, { outer: plan.outer, dims: words.dims, strides: words.strides, access: [...plan.access, ...offsets].map(() => "unit"), base });
    plan.access.forEach((m, i) => {
      if (stepsRows(m)) this.addProduct(this.base(i), lFirst, () => c.get(this.rowStride(i)));
      if (m === "gather") this.addProduct(this.base(i), lColumn, () => c.get(this.gather(i)));
      if (m === "element" || m === "column") this.addProduct(this.base(i), lColumn, () => c.i32(plan.inputBytes[i] as number));
    });
    if (!this.withElements) return;
    this.addProduct(lElement, lFirst, () => c.get(lOutStride));
    c.get(lElement);
    c.get(lColumn);
    c.op(op.i32_add);
    c.set(lElement);
  }
  /** local += a * what is pushed */
  private addProduct(local: number, a: number, push: () => void): void {
    const { c } = this;
    c.get(local);
    c.get(a);
    push();
    c.op(op.i32_mul, op.i32_add);
    c.set(local);
  }

  // ---- values that are known before the columns

  /** `level` 0: once for a unit. */
  private emitFixed(level: number): void {
    for (const v of this.order) if (this.level.get(v) === level && this.used.has(v)) this.fixed.set(v, this.fixedLocals(v, (i) => this.base(i), this.fixed, undefined));
  }
  private fixedLocals(v: Value, pointer: (i: number) => number, known: ReadonlyMap<Value, readonly number[]>, reuse: readonly number[] | undefined): readonly number[] {
    const { c } = this;
    if (v.op === "const") {
      c.v128(constBytes(v));
      const local = reuse?.[0] ?? this.newVector();
      c.set(local);
      return [local, local];
    }
    const locals = reuse ?? Array.from({ length: parts(v.type) }, this.newVector);
    locals.forEach((local, h) => {
      if (v.op === "input") emitSplat(c, v.dtype as Dtype, pointer(Number(v.imm)), 0);
      else emitOp(c, v, h, (i, part) => c.get(((known.get(v.args[i] as Value) ?? this.fixed.get(v.args[i] as Value)) as readonly number[])[part] as number));
      c.set(local);
    });
    return locals;
  }

  // ---- passes over the elements

  private emitSweep(reduces: readonly LoweredReduce[], stores: readonly number[], roots: readonly Value[]): void {
    const { c, plan } = this;
    const nodes = this.nodesOf(roots);
    this.startAccumulators(reduces);
    const inputs = plan.access.flatMap((m, i) => (stepsRows(m) && nodes.some((v) => v.op === "input" && Number(v.imm) === i && !this.numbers.has(v)) ? [i] : []));
    for (const i of inputs) {
      c.get(this.base(i));
      c.set(this.cursor(i, 0));
    }
    for (const j of stores) this.placeOut(j, lElement);
    c.get(lRows);
    c.set(lLeft);
    // Row starts stay in base(i) and out(j), which move; they go back at the end.
    for (const rows of [deepest, 1]) {
      c.op(op.block, 0x40);
      c.get(lLeft);
      c.i32(rows);
      c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
      this.emitRows(rows, nodes, reduces, stores, roots, inputs);
      c.getPlus(lLeft, -rows);
      c.tee(lLeft);
      c.i32(rows);
      c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
    }
    for (const i of inputs) {
      c.get(this.base(i));
      c.get(lRows);
      c.get(this.rowStride(i));
      c.op(op.i32_mul, op.i32_sub);
      c.set(this.base(i));
    }
  }
  /** All that the values need, but results of reductions as such. */
  private nodesOf(roots: readonly Value[]): Value[] {
    const seen = new Set<Value>();
    const visit = (v: Value): void => {
      if (seen.has(v)) return;
      seen.add(v);
      if (!this.numbers.has(v)) v.args.forEach(visit);
    };
    roots.forEach(visit);
    return [...seen].sort((a, b) => a.id - b.id);
  }
  private placeOut(j: number, first: number): void {
    const { c, words, plan } = this;
    this.loadWord(words.out + j, this.out(j));
    this.addProduct(this.out(j), first, () => c.i32((plan.outputs[j] as LoweredOutput).bytes));
  }
  private startAccumulators(reduces: readonly LoweredReduce[]): void {
    if (reduces.length === 0) return;
    const { c } = this;
    this.eachColumn([4, 1], (step) => {
      for (const r of reduces) {
        const { type } = r.value;
        c.v128(constBytes(identityOf(r.rule, type)));
        const local = this.free.pop() ?? this.newVector();
        c.set(local);
        this.storeSlot(2 * this.numberOf(r), type, step, [local, local]);
        this.free.push(local);
      }
    }, () => {});
  }
  private numberOf(r: LoweredReduce): number {
    return this.numbers.get(r.result) as number;
  }
  /** for columns of the block, by steps of 16, 4 or 1, of which `body` computes four or one; `advance` moves further cursors. */
  private eachColumn(steps: readonly number[], body: (step: number) => void, advance: (step: number) => void): void {
    const { c } = this;
    c.op(op.global_get, 0);
    c.tee(lNarrow);
    c.set(lWide);
    c.get(lCount);
    c.set(lRest);
    for (const step of steps) {
      c.op(op.block, 0x40);
      c.get(lRest);
      c.i32(step);
      c.op(op.i32_lt_u, op.br_if, 0, op.loop, 0x40);
      for (this.four = 0; this.four < Math.max(1, step / 4); this.four++) body(Math.min(step, 4));
      this.four = 0;
      advance(step);
      c.getPlus(lNarrow, 4 * step);
      c.set(lNarrow);
      c.getPlus(lWide, 8 * step);
      c.set(lWide);
      c.getPlus(lRest, -step);
      c.tee(lRest);
      c.i32(step);
      c.op(op.i32_ge_u, op.br_if, 0, op.end, op.end);
    }
  }
  /** Bytes from the cursor of elements to the four at hand. */
  private behind(bytes: number): number {
    return 4 * this.four * bytes;
  }
  private slotPlace(slot: number, type: Value["type"]): { pointer: number; offset: number } {
    return { pointer: isWide(type) ? lWide : lNarrow, offset: slot * slotBytes + (isWide(type) ? 32 : 16) * this.four };
  }
  private storeSlot(slot: number, type: Value["type"], step: number, locals: readonly number[]): void {
    const { pointer, offset } = this.slotPlace(slot, type);
    emitStore(this.c, 4 * parts(type), pointer, step === 1, offset, locals);
  }
  private loadSlot(slot: number, type: Value["type"], step: number, h: number): void {
    const { c } = this;
    const { pointer, offset } = this.slotPlace(slot, type);
    c.get(pointer);
    if (step > 1) c.simd(simd.load);
    else c.simd(isWide(type) ? simd.load64_splat : simd.load32_splat);
    c.offset(offset + (step > 1 ? 16 * h : 0));
  }

  /** Some rows of the block. */
  private emitRows(rows: number, nodes: readonly Value[], reduces: readonly LoweredReduce[], stores: readonly number[], roots: readonly Value[], inputs: readonly number[]): void {
    const { c, plan } = this;
    for (let k = 0; k < rows; k++) {
      for (const i of inputs) {
        c.get(this.base(i));
        if (k > 0) {
          c.get(this.rowStride(i));
          c.i32(k);
          c.op(op.i32_mul, op.i32_add);
        }
        c.set(this.cursor(i, k));
      }
      for (const j of stores) {
        c.get(this.out(j));
        if (k > 0) {
          c.get(lOutStride);
          c.i32(k * (plan.outputs[j] as LoweredOutput).bytes);
          c.op(op.i32_mul, op.i32_add);
        }
        c.set(this.outCursor(j, k));
      }
    }
    const columns = plan.access.flatMap((m, i) => (m === "column" ? [i] : []));
    for (const i of columns) {
      c.get(this.base(i));
      c.set(this.cursor(i, 0));
    }
    const perRows = Array.from({ length: rows }, (_, k) => this.rowValues(nodes, k));
    const copies = this.copies(nodes, rows);
    // Cache lines are used up at once: rows are often so far apart that their lines push each other out.
    this.eachColumn(copies === deepest ? [16, 4, 1] : [4, 1], (step) => {
      const shared = this.columnValues(nodes, step);
      const made: ReadonlyMap<Value, readonly number[]>[] = [];
      for (let first = 0; first < rows; first += copies) made.push(...this.emitElements(nodes, roots, step, first, copies, perRows, shared));
      const local = (v: Value, k: number): readonly number[] => (this.fixed.get(v) ?? shared.get(v) ?? perRows[k]?.get(v) ?? made[k]?.get(v)) as readonly number[];
      for (const r of reduces) this.accumulate(r, step, made.map((_, k) => local(r.value, k)));
      for (const j of stores) {
        const o = plan.outputs[j] as LoweredOutput;
        made.forEach((_, k) => emitStore(c, o.bytes, this.outCursor(j, k), step === 1, this.behind(o.bytes), local(o.value, k)));
      }
      for (const m of made) for (const v of new Set(roots)) this.free.push(...(m.get(v) ?? []));
      for (const m of new Set([...shared.values()].flat())) this.free.push(m);
    }, (step) => {
      const by = (local: number, bytes: number): void => {
        c.getPlus(local, bytes * step);
        c.set(local);
      };
      for (let k = 0; k < rows; k++) {
        for (const i of inputs) if (plan.access[i] === "element") by(this.cursor(i, k), plan.inputBytes[i] as number);
        for (const j of stores) by(this.outCursor(j, k), (plan.outputs[j] as LoweredOutput).bytes);
      }
      for (const i of columns) by(this.cursor(i, 0), plan.inputBytes[i] as number);
    });
    for (const m of perRows) for (const l of new Set([...m.values()].flat())) this.free.push(l);
    for (const i of inputs) this.addProduct(this.base(i), this.rowStride(i), () => c.i32(rows));
    for (const j of stores) this.addProduct(this.out(j), lOutStride, () => c.i32(rows * (plan.outputs[j] as LoweredOutput).bytes));
  }
  private copies(nodes: readonly Value[], rows: number): number {
    let n = 0;
    for (const v of nodes) if (this.level.get(v) === perElement) n += weigh1(v);
    return Math.min(rows, n <= 96 ? 4 : n <= 400 ? 2 : 1);
  }
  private takeLocals(v: Value): number[] {
    return Array.from({ length: parts(v.type) }, () => this.free.pop() ?? this.newVector());
  }
  /** Values of row k that are the same in all columns. */
  private rowValues(nodes: readonly Value[], k: number): Map<Value, readonly number[]> {
    const known = new Map<Value, readonly number[]>();
    for (const v of nodes) if (this.level.get(v) === perRow) known.set(v, this.fixedLocals(v, (i) => this.cursor(i, k), known, this.takeLocals(v)));
    return known;
  }
  /** Values of the columns at hand that are the same in all rows. */
  private columnValues(nodes: readonly Value[], step: number): Map<Value, readonly number[]> {
    const { c } = this;
    const known = new Map<Value, readonly number[]>();
    for (const v of nodes) {
      if (this.level.get(v) !== perColumn) continue;
      const locals = this.takeLocals(v);
      const number = this.numbers.get(v);
      locals.forEach((local, h) => {
        if (number !== undefined) this.loadSlot(2 * number + 1, v.type, step, h);
        else if (v.op !== "input") emitOp(c, v, h, (i, part) => c.get(((known.get(v.args[i] as Value) ?? this.fixed.get(v.args[i] as Value)) as readonly number[])[part] as number));
        else if (step === 1) emitSplat(c, v.dtype as Dtype, this.cursor(Number(v.imm), 0), 0);
        else emitLoad(c, v.dtype as Dtype, this.cursor(Number(v.imm), 0), this.behind((v.dtype as Dtype).size) + 16 * h);
        c.set(local);
      });
      known.set(v, locals);
    }
    return known;
  }
  /** Elements of rows from `first` on, interleaved operation by operation; locals are reused as soon as their value is dead. */
  private emitElements(nodes: readonly Value[], roots: readonly Value[], step: number, first: number, copies: number, perRows: readonly ReadonlyMap<Value, readonly number[]>[], shared: ReadonlyMap<Value, readonly number[]>): ReadonlyMap<Value, readonly number[]>[] {
    const { c } = this;
    const mine = nodes.filter((v) => this.level.get(v) === perElement);
    const last = new Map<Value, Value>();
    for (const v of mine) for (const a of v.args) last.set(a, v);
    for (const r of roots) last.delete(r);
    const places = Array.from({ length: copies }, () => new Map<Value, readonly number[]>());
    for (const v of mine) {
      const dead = [...new Set(v.args)].filter((a) => last.get(a) === v && this.level.get(a) === perElement);
      places.forEach((at, n) => {
        if (v.op === "input") {
          at.set(v, this.emitInput(v, step, first + n));
          return;
        }
        const push: PushArg = (i, part) => {
          const a = v.args[i] as Value;
          c.get(((this.fixed.get(a) ?? shared.get(a) ?? perRows[first + n]?.get(a) ?? at.get(a)) as readonly number[])[part] as number);
        };
        const count = parts(v.type);
        for (let h = 0; h < count; h++) emitOp(c, v, h, push);
        for (const a of dead) this.free.push(...(at.get(a) as readonly number[]));
        const to = this.takeLocals(v);
        for (let h = count - 1; h >= 0; h--) c.set(to[h] as number);
        at.set(v, to);
      });
    }
    return places;
  }
  private emitInput(v: Value, step: number, k: number): readonly number[] {
    const { c, plan } = this;
    const i = Number(v.imm);
    const dtype = v.dtype as Dtype;
    const locals = this.takeLocals(v);
    const gathered = plan.access[i] === "gather";
    locals.forEach((local, h) => {
      if (gathered && step > 1) {
        emitGather(c, dtype, this.cursor(i, k), this.gather(i), local);
        return;
      }
      if (step === 1) emitSplat(c, dtype, this.cursor(i, k), 0);
      else emitLoad(c, dtype, this.cursor(i, k), this.behind(dtype.size) + 16 * h);
      c.set(local);
    });
    if (gathered && step === 1) {
      c.get(this.cursor(i, k));
      c.get(this.gather(i));
      c.op(op.i32_add);
      c.set(this.cursor(i, k));
    }
    return locals;
  }
  /** accumulator = accumulator with ((y0 with y1) with (y2 with y3)), or with one y. */
  private accumulate(r: LoweredReduce, step: number, ys: readonly (readonly number[])[]): void {
    const { c } = this;
    const { rule, value: { type } } = r;
    const slot = 2 * this.numberOf(r);
    const extreme = isFloatType(type) && (rule === "max" || rule === "min");
    const count = parts(type);
    const to = this.takeLocals(r.value);
    // Of wide types the two halves one after another.
    for (let h = 0; h < count; h++) {
      const tree = (from: number, length: number): void => {
        if (length === 1) c.get((ys[from] as readonly number[])[h] as number);
        else combineOf(c, extreme, rule, type, () => tree(from, length / 2), () => tree(from + length / 2, length / 2));
      };
      // combine() may push an operand twice, so a tree of more than one level goes through a local.
      const local = to[h] as number;
      if (ys.length === 1) tree(0, 1);
      else {
        const other = this.free.pop() ?? this.newVector();
        tree(0, 2);
        c.set(local);
        tree(2, 2);
        c.set(other);
        combineOf(c, extreme, rule, type, () => c.get(local), () => c.get(other));
        this.free.push(other);
      }
      c.set(local);
      const before = this.free.pop() ?? this.newVector();
      this.loadSlot(slot, type, step, h);
      c.set(before);
      combineOf(c, extreme, rule, type, () => c.get(before), () => c.get(local));
      this.free.push(before);
      if (extreme) {
        ys.forEach((y) => {
          c.get(y[h] as number);
          c.get(y[h] as number);
          c.simd(type === "f64" ? 0x48 : 0x42);
          c.simd(simd.or);
        });
      }
      c.set(local);
    }
    this.storeSlot(slot, type, step, to);
    this.free.push(...to);
  }

  /** Turns accumulators into results as later formulas read them. */
  private publish(reduces: readonly LoweredReduce[]): void {
    if (reduces.length === 0) return;
    const { c } = this;
    this.eachColumn([4, 1], (step) => {
      for (const r of reduces) {
        const bool = r.raw.type === "bool";
        const known = new Map<Value, readonly number[]>();
        for (const v of bool ? [r.raw] : reachable([r.bits])) {
          const locals = v.op === "const" ? [this.free.pop() ?? this.newVector()] : this.takeLocals(v);
          for (const [h, local] of locals.entries()) {
            if (v === r.raw) this.loadSlot(2 * this.numberOf(r), r.value.type, step, h);
            else if (v.op === "const") c.v128(constBytes(v));
            else emitOp(c, v, h, (i, part) => c.get((known.get(v.args[i] as Value) as readonly number[])[part] as number));
            if (bool) {
              c.v128(new Uint8Array(Int32Array.from([1, 1, 1, 1]).buffer));
              c.simd(simd.and);
            }
            c.set(local);
          }
          known.set(v, v.op === "const" ? [locals[0] as number, locals[0] as number] : locals);
        }
        this.storeSlot(2 * this.numberOf(r) + 1, r.result.type, step, known.get(bool ? r.raw : r.bits) as readonly number[]);
        for (const l of new Set([...known.values()].flat())) this.free.push(l);
      }
    }, () => {});
  }

  /** One element per column. */
  private emitColumnOutputs(): void {
    const { c, plan } = this;
    const mine = plan.outputs.flatMap((o, j) => (o.perRow ? [j] : []));
    if (mine.length === 0) return;
    c.get(lTall);
    c.get(lInner);
    c.op(op.i32_mul);
    c.get(lColumn);
    c.op(op.i32_add);
    c.set(lIndex);
    for (const j of mine) this.placeOut(j, lIndex);
    const columns = plan.access.flatMap((m, i) => (m === "column" ? [i] : []));
    for (const i of columns) {
      c.get(this.base(i));
      c.set(this.cursor(i, 0));
    }
    const nodes = this.nodesOf(mine.map((j) => (plan.outputs[j] as LoweredOutput).value));
    this.eachColumn([4, 1], (step) => {
      const known = this.columnValues(nodes, step);
      for (const j of mine) {
        const o = plan.outputs[j] as LoweredOutput;
        emitStore(c, o.bytes, this.out(j), step === 1, 0, (this.fixed.get(o.value) ?? known.get(o.value)) as readonly number[]);
      }
      for (const l of new Set([...known.values()].flat())) this.free.push(l);
    }, (step) => {
      for (const [local, bytes] of [...mine.map((j) => [this.out(j), (plan.outputs[j] as LoweredOutput).bytes]), ...columns.map((i) => [this.cursor(i, 0), plan.inputBytes[i]])] as [number, number][]) {
        c.getPlus(local, bytes * step);
        c.set(local);
      }
    });
  }
}

/** Float extremes pass NaN of the second operand over here; they are noted apart. */
function combineOf(c: Code, extreme: boolean, rule: LoweredReduce["rule"], type: Value["type"], a: () => void, b: () => void): void {
  if (!extreme) {
    combine(c, rule, type, a, b);
    return;
  }
  a();
  b();
  c.simd(rule === "max" ? (type === "f64" ? 0xf7 : 0xeb) : type === "f64" ? 0xf6 : 0xea);
}

const weigh1 = (v: Value): number => (v.op === "input" ? 1 : v.op === "const" ? 0 : (v.op === "div" || v.op === "sqrt" ? 3 : v.op === "quot" ? 20 : 1) * parts(v.type));
