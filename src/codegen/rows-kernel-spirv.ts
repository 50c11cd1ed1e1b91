/** Kernels of row groups as SPIR-V: an invocation's share of a row, reductions over the invocations of a row, results. */
import type { Dtype } from "../core/dtype.ts";
import { type Value, reachable } from "../core/expr.ts";
import type { Stored } from "./lower.ts";
import { type Block, type SpirvAccess, SpirvEmitter, type SpirvFeatures, divisionWords } from "./operands-spirv.ts";
import type { Part } from "./row-rules.ts";
import { type SharedParts, RowCombiner } from "./rows-combine-spirv.ts";
import { type Id, builtIn, glsl, spv } from "./spirv.ts";

/** A reduction: its formulas are lowered. */
export interface RowStepReduce {
  /** Its place in the group. */
  readonly index: number;
  readonly parts: readonly Part[];
  /** Of `input(j)` for part j. */
  readonly result: Value;
}
/** What a kernel is made for. No sizes: they are words. */
export interface RowKernelPlan {
  readonly inputs: readonly Dtype[];
  /** `w`, `u`, `r` or `g`. */
  readonly access: readonly SpirvAccess[];
  /** Neighbouring invocations have neighbouring rows, which are columns of the arrays. `access` has one more entry, `g`: where outputs of elements lie. */
  readonly columns: boolean;
  readonly outputs: readonly Stored[];
  readonly perRow: readonly boolean[];
  readonly stores: readonly SpirvAccess[];
  /** Reductions that need no result of each other, one phase after another. */
  readonly phases: readonly (readonly RowStepReduce[])[];
  /** Number of reductions; value number `inputs + reduces` is an element's place in its row. */
  readonly reduces: number;
  /** Dimensions that rows are counted by. */
  readonly dims: number;
  /** Neighbouring elements in a block; a row is a whole number of blocks. */
  readonly lanes: number;
  /** Invocations of a row, and of a workgroup: powers of two. From 128 on a workgroup has one row. */
  readonly across: number;
  readonly group: number;
  /** Blocks that an invocation takes at a time: all of its share of a row, unless there is a loop. */
  readonly unroll: number;
  readonly loop: boolean;
  /** The device reduces over subgroups. */
  readonly subgroups: boolean;
  /**
   * Undefined: everything. Otherwise rows are cut into chunks, one per workgroup, and this is one dispatch of several: number p makes the partial results of phase p, the
   * last one, as many as there are phases, the outputs.
   */
  readonly stage: number | undefined;
  readonly table: boolean;
  readonly signed: boolean;
  readonly features: SpirvFeatures;
  readonly roundsDivision: boolean;
}

/** Words: rows, blocks of a row; with stages, blocks of a chunk and chunks of a row; those of `coordinates`; per input its element stride (`g`) and its strides of rows (`w`: in blocks). */
export const headWords = (plan: Pick<RowKernelPlan, "stage">): number => (plan.stage === undefined ? 2 : 4);
export const rowWordCount = (plan: Pick<RowKernelPlan, "stage" | "dims" | "access">): number =>
  headWords(plan) + divisionWords(plan.dims) + plan.access.reduce((n, a) => n + plan.dims + Number(a === "g"), 0);

/** Makes the module. */
export const emitRowKernel = (plan: RowKernelPlan): Uint32Array => new Emitter(plan).emit();

/** An invocation's place. */
interface Place {
  readonly row: Id;
  /** The row exists. */
  readonly inside: Id;
  /** Among the invocations of the row. */
  readonly at: Id;
  /** Blocks from `first` to before `end`, of the row. */
  readonly first: Id;
  readonly end: Id;
  readonly chunk: Id | undefined;
  /** Of each input: where the row begins. */
  readonly offsets: readonly Id[];
  readonly steps: readonly (Id | undefined)[];
}
/** A block, whether it exists (if not, it stands for the last one), and what is known of its elements. */
interface Slot extends Block {
  readonly valid: Id;
  readonly block: Id;
  readonly ids: Map<Value, readonly Id[]>;
}

class Emitter extends SpirvEmitter {
  private readonly plan: RowKernelPlan;
  /** Values that are the same for all elements of a row, and those that have been computed. */
  private readonly common = new Set<Value>();
  private readonly ids = new Map<Value, readonly Id[]>();
  private readonly results = new Map<number, Id>();
  private readonly combiner: RowCombiner;
  private place!: Place;
  /** The elements of the row, when they stay in registers. */
  private held: Slot[] | undefined;

  constructor(plan: RowKernelPlan) {
    super({ inputs: plan.inputs, access: plan.access, stores: plan.stores, more: plan.stage === undefined ? 0 : 1, table: plan.table, words: rowWordCount(plan), signed: plan.signed });
    this.plan = plan;
    const values = reachable([...plan.outputs.map((o) => o.value), ...plan.phases.flat().flatMap((r) => r.parts.map((p) => p.take))]);
    const n = plan.inputs.length;
    const isCommon = (v: Value): boolean => {
      const i = Number(v.imm);
      if (v.op !== "input") return v.args.every((a) => this.common.has(a));
      return i < n ? plan.access[i] === "r" : i < n + plan.reduces;
    };
    for (const v of values) if (isCommon(v)) this.common.add(v);
    this.declareUsed([...values, ...reachable(plan.phases.flat().map((r) => r.result))], plan.features, plan.roundsDivision);
    this.combiner = new RowCombiner(this.m, plan, { when: (c, yes) => this.when(c, yes), loop: (...args) => this.loop(...args) });
  }

  emit(): Uint32Array {
    const { m, plan, u32 } = this;
    const group = this.groupVariables();
    const local = this.builtIn(u32, builtIn.localInvocationIndex);
    this.combiner.declare();
    return m.finish([plan.group, 1, 1], () => {
      this.enter(this.groupIndex(group), m.op(spv.load, u32, local));
      plan.phases.forEach((reduces, p) => {
        const { stage } = plan;
        if (stage !== undefined && p > stage) return;
        const partial = stage === undefined || p === stage ? this.reduceElements(reduces) : this.reducePartials(p);
        const totals = this.combiner.across(reduces, partial);
        if (p === stage) this.storePartials(p, totals);
        else reduces.forEach((r, k) => this.results.set(r.index, this.resultOf(r, totals[k] as SharedParts)));
      });
      if (plan.stage === undefined || plan.stage === plan.phases.length) this.storeOutputs();
    });
  }

  /** Where the invocation works. */
  private enter(groupIndex: Id, local: Id): void {
    const { m, plan, u32 } = this;
    const [rows, blocks] = [this.word(0), this.word(1)];
    const perGroup = plan.group / plan.across;
    const lane = this.combiner.enter(plan.columns && perGroup > 1 ? this.byColumns(local, perGroup) : local);
    // Where only results of rows are left to store, a workgroup has a whole row.
    const whole = plan.stage === plan.phases.length && plan.perRow.every((one) => one);
    const chunks = plan.stage === undefined || whole ? undefined : this.word(3);
    let row = chunks === undefined ? groupIndex : m.op(spv.uDiv, u32, groupIndex, chunks);
    const chunk = chunks === undefined ? undefined : m.op(spv.iSub, u32, groupIndex, m.op(spv.iMul, u32, row, chunks));
    if (perGroup > 1) row = m.op(spv.iAdd, u32, this.times(row, perGroup), m.op(spv.shiftRightLogical, u32, lane, m.u32(Math.log2(plan.across))));
    const inside = m.op(spv.uLessThan, m.bool(), row, rows);
    // What is beyond the last row computes it too, and stores nothing.
    row = m.glsl(glsl.uMin, u32, row, m.op(spv.iSub, u32, rows, m.u32(1)));
    const at = perGroup > 1 ? m.op(spv.bitwiseAnd, u32, lane, m.u32(plan.across - 1)) : lane;
    const first = chunk === undefined ? m.u32(0) : m.op(spv.iMul, u32, chunk, this.word(2));
    const end = chunk === undefined ? blocks : m.glsl(glsl.uMin, u32, m.op(spv.iAdd, u32, first, this.word(2)), blocks);
    const coordinates = this.coordinates(row, plan.dims, headWords(plan));
    let next = headWords(plan) + divisionWords(plan.dims);
    const steps: (Id | undefined)[] = [];
    const offsets = plan.access.map((a, i) => {
      if (a === "g") steps[i] = this.word(next++);
      const terms = coordinates.map((c) => m.op(spv.iMul, u32, c, this.word(next++)));
      return terms.length === 0 ? m.u32(0) : terms.reduce((x, y) => m.op(spv.iAdd, u32, x, y));
    });
    this.place = { row, inside, at, first, end, chunk, offsets, steps };
  }

  /** The invocation's number when those of a row follow each other, of one that has row `local` % `perGroup`. */
  private byColumns(local: Id, perGroup: number): Id {
    const { m, plan, u32 } = this;
    const row = m.op(spv.bitwiseAnd, u32, local, m.u32(perGroup - 1));
    return m.op(spv.iAdd, u32, this.times(row, plan.across), m.op(spv.shiftRightLogical, u32, local, m.u32(Math.log2(perGroup))));
  }
  /** for (i = from; i < end; i += step): with values that go around in variables. */
  private loop(from: Id, end: Id, step: Id, body: (i: Id) => void): void {
    const { m, u32 } = this;
    const counter = m.local(u32);
    const [head, test, inner, next, after] = [m.id(), m.id(), m.id(), m.id(), m.id()];
    m.emit(spv.store, counter, from);
    m.emit(spv.branch, head);
    m.label(head);
    m.emit(spv.loopMerge, after, next, 0);
    m.emit(spv.branch, test);
    m.label(test);
    const i = m.op(spv.load, u32, counter);
    m.emit(spv.branchConditional, m.op(spv.uLessThan, m.bool(), i, end), inner, after);
    m.label(inner);
    body(i);
    m.emit(spv.branch, next);
    m.label(next);
    m.emit(spv.store, counter, m.op(spv.iAdd, u32, i, step));
    m.emit(spv.branch, head);
    m.label(after);
  }

  /** The blocks that the invocation takes when those of the row's invocations begin at `from`. */
  private slots(from: Id): Slot[] {
    const { m, plan, u32 } = this;
    const { at, end, row, offsets, steps } = this.place;
    const last = m.op(spv.iSub, u32, end, m.u32(1));
    const start = m.op(spv.iAdd, u32, from, at);
    const rowStart = m.op(spv.iMul, u32, row, this.word(1));
    return Array.from({ length: plan.unroll }, (_, k) => {
      const wanted = this.plus(start, k * plan.across);
      const valid = m.op(spv.uLessThan, m.bool(), wanted, end);
      const block = m.glsl(glsl.uMin, u32, wanted, last);
      const element = this.times(block, plan.lanes);
      const positions = plan.access.map((a, i) => {
        const offset = offsets[i] as Id;
        if (a === "r") return offset;
        return m.op(spv.iAdd, u32, offset, a === "w" ? block : a === "u" ? element : m.op(spv.iMul, u32, element, steps[i] as Id));
      });
      const index = plan.columns ? (positions[plan.inputs.length] as Id) : m.op(spv.iAdd, u32, rowStart, block);
      return { valid, block, ids: new Map(), index, lanes: plan.lanes, positions, steps };
    });
  }
  /** Calls `work` with the invocation's blocks, in a loop when the row is long. What rows have in common must have been computed. */
  private eachShare(work: (slots: readonly Slot[]) => void): void {
    const { m, plan } = this;
    if (!plan.loop) {
      this.held ??= this.slots(this.place.first);
      work(this.held);
    } else this.loop(this.place.first, this.place.end, m.u32(plan.across * plan.unroll), (from) => work(this.slots(from)));
  }
  /** Computes what the values need of the row, before any loop. */
  private prepare(values: readonly Value[]): void {
    const { row, offsets, steps } = this.place;
    const block: Block = { index: row, lanes: 1, positions: offsets, steps };
    for (const v of reachable(values)) if (this.common.has(v)) this.compute(v, this.ids, block);
  }
  private compute(v: Value, ids: Map<Value, readonly Id[]>, block: Block): void {
    if (ids.has(v)) return;
    const n = this.plan.inputs.length;
    const i = Number(v.imm);
    if (v.op !== "input") ids.set(v, this.emitValue(v, block.lanes, v.args.map((a) => ids.get(a) ?? (this.ids.get(a) as readonly Id[]))));
    else if (i >= n) ids.set(v, [this.results.get(i - n) as Id]);
    else ids.set(v, this.emitInput(v, block));
  }
  /** The values of a block's elements: one when they are all the same. */
  private elements(values: readonly Value[], slot: Slot): (readonly Id[])[] {
    const place = this.plan.inputs.length + this.plan.reduces;
    for (const v of reachable(values)) {
      if (this.common.has(v) || slot.ids.has(v)) continue;
      if (v.op === "input" && Number(v.imm) === place) {
        const first = this.times(slot.block, slot.lanes);
        slot.ids.set(v, Array.from({ length: slot.lanes }, (_, k) => this.plus(first, k)));
      } else this.compute(v, slot.ids, slot);
    }
    return values.map((v) => slot.ids.get(v) ?? (this.ids.get(v) as readonly Id[]));
  }

  /** What the invocation's own elements give. */
  private reduceElements(reduces: readonly RowStepReduce[]): SharedParts[] {
    const { plan, combiner } = this;
    const takes = reduces.flatMap((r) => r.parts.map((p) => p.take));
    this.prepare(takes);
    const share = (slots: readonly Slot[]): SharedParts[] => {
      const per = slots.map((slot) => {
        const taken = this.elements(takes, slot);
        let at = 0;
        return reduces.map((r) => {
          const mine = taken.slice(at, at + r.parts.length);
          at += r.parts.length;
          const lanes = Array.from({ length: plan.lanes }, (_, k) => mine.map((ids) => (ids.length === 1 ? ids[0] : ids[k]) as Id));
          return combiner.orIdentity(r.parts, slot.valid, combiner.tree(r.parts, lanes));
        });
      });
      return reduces.map((r, k) => combiner.tree(r.parts, per.map((slot) => slot[k] as SharedParts)));
    };
    if (plan.loop) return combiner.running(reduces, (add) => this.eachShare((slots) => add(share(slots))));
    let all: SharedParts[] = [];
    this.eachShare((slots) => {
      all = share(slots);
    });
    return all;
  }

  private resultOf(r: RowStepReduce, parts: SharedParts): Id {
    const ids = new Map<Value, readonly Id[]>();
    for (const v of reachable([r.result])) ids.set(v, v.op === "input" ? [parts[Number(v.imm)] as Id] : this.emitValue(v, 1, v.args.map((a) => ids.get(a) as readonly Id[])));
    return (ids.get(r.result) as readonly Id[])[0] as Id;
  }

  /** Where word `w` of a partial result lies: those of one word side by side, by row and chunk. */
  private partialWord(w: number, chunk: Id): Id {
    const { m, u32, plan } = this;
    const chunks = this.word(3);
    const index = m.op(spv.iAdd, u32, m.op(spv.iMul, u32, this.place.row, chunks), chunk);
    const area = m.op(spv.iMul, u32, m.op(spv.iMul, u32, this.word(0), chunks), m.u32(w));
    return this.pointer(plan.inputs.length + plan.outputs.length, u32, 4, m.op(spv.iAdd, u32, area, index));
  }
  private firstWord(phase: number): number {
    return this.combiner.wordsOf(this.plan.phases.slice(0, phase).flat());
  }
  private storePartials(phase: number, totals: readonly SharedParts[]): void {
    const { m, plan, place } = this;
    const first = m.op(spv.iEqual, m.bool(), place.at, m.u32(0));
    this.when(m.op(spv.logicalAnd, m.bool(), first, place.inside), () => {
      const words = this.combiner.toWords(plan.phases[phase] as readonly RowStepReduce[], totals);
      words.forEach((word, w) => m.emit(spv.store, this.partialWord(this.firstWord(phase) + w, place.chunk as Id), word, 2, 4));
    });
  }
  /** What the chunks of a row gave an earlier dispatch. */
  private reducePartials(phase: number): SharedParts[] {
    const { m, plan, u32 } = this;
    const reduces = plan.phases[phase] as readonly RowStepReduce[];
    const count = this.combiner.wordsOf(reduces);
    return this.combiner.running(reduces, (add) =>
      this.loop(this.place.at, this.word(3), m.u32(plan.across), (chunk) => {
        add(this.combiner.fromWords(reduces, Array.from({ length: count }, (_, w) => m.op(spv.load, u32, this.partialWord(this.firstWord(phase) + w, chunk), 2, 4))));
      }),
    );
  }

  private storeOutputs(): void {
    const { m, plan, place } = this;
    this.prepare(plan.outputs.map((o) => o.value));
    const some = plan.outputs.map((_, j) => j);
    const single = some.filter((j) => plan.perRow[j]);
    const each = some.filter((j) => !plan.perRow[j]);
    const both = (a: Id, b: Id): Id => m.op(spv.logicalAnd, m.bool(), a, b);
    const isZero = (id: Id): Id => m.op(spv.iEqual, m.bool(), id, m.u32(0));
    if (each.length > 0) {
      this.eachShare((slots) => {
        const values = slots.map((slot) => this.elements(each.map((j) => (plan.outputs[j] as Stored).value), slot));
        slots.forEach((slot, k) =>
          this.when(both(slot.valid, place.inside), () =>
            each.forEach((j, n) => {
              const ids = (values[k] as (readonly Id[])[])[n] as readonly Id[];
              this.emitStore(plan.outputs[j] as Stored, j, ids.length === slot.lanes ? ids : new Array<Id>(slot.lanes).fill(ids[0] as Id), slot);
            }),
          ),
        );
      });
    }
    if (single.length === 0) return;
    const first = both(place.inside, isZero(place.at));
    this.when(place.chunk === undefined ? first : both(first, isZero(place.chunk)), () => {
      for (const j of single) {
        const o = plan.outputs[j] as Stored;
        this.emitStore(o, j, this.ids.get(o.value) as readonly Id[], { index: place.row, lanes: 1, positions: [], steps: [] });
      }
    });
  }
}
