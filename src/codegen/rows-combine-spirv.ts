/** Partial results of rows in SPIR-V: how two become one, and how those of a row's invocations do, over subgroups and shared memory. */
import { constantId, typeId } from "./lanes-spirv.ts";
import type { Part } from "./row-rules.ts";
import type { RowKernelPlan, RowStepReduce } from "./rows-kernel-spirv.ts";
import { type Id, type SpirvModule, builtIn, capability, decoration, glsl, spv, storageClass } from "./spirv.ts";

/** The parts of a partial result. */
export type SharedParts = readonly Id[];
/** Control flow, as the emitter has it. */
interface Flow {
  readonly when: (condition: Id, yes: () => void) => void;
  readonly loop: (from: Id, end: Id, step: Id, body: (i: Id) => void) => void;
}
const isWidePart = (p: Part): boolean => p.type === "f64" || p.type === "u64";
/** Subgroups have at most this many invocations. */
const widestSubgroup = 128;
const scope = { workgroup: 2, subgroup: 3 } as const;
/** Acquire and release of the workgroup's memory. */
const sharedSemantics = 0x108;

export const partWords = (reduces: readonly { readonly parts: readonly Part[] }[]): number => reduces.reduce((n, r) => r.parts.reduce((k, p) => k + (isWidePart(p) ? 2 : 1), n), 0);
/** Words of shared memory: two areas by turns, so that one barrier lies between a write and the next write to the same place that matters, and no other is needed. */
export const sharedWords = (plan: Pick<RowKernelPlan, "phases" | "group" | "across">): number =>
  plan.across === 1 ? 0 : 2 * plan.group * Math.max(0, ...plan.phases.map(partWords));

export class RowCombiner {
  private readonly m: SpirvModule;
  private readonly u32: Id;
  private readonly plan: RowKernelPlan;
  private readonly flow: Flow;
  private memory: Id = 0;
  private turn = 0;
  private builtIns: { size: Id; count: Id; id: Id; lane: Id } | undefined;
  /** Runs of invocations that have reduced among themselves: their number in a row, the first of the row's, that of this invocation, and whether this one writes. */
  private runs: { count: Id; first: Id; own: Id; writes: Id; fits: Id | undefined } | undefined;
  private lane: Id = 0;

  constructor(m: SpirvModule, plan: RowKernelPlan, flow: Flow) {
    this.m = m;
    this.u32 = m.int(32);
    this.plan = plan;
    this.flow = flow;
  }
  private get bySubgroup(): boolean {
    return this.plan.subgroups && this.plan.across > 1 && this.plan.phases.some((p) => this.subgroupsServe(p));
  }
  /** 64-bit parts would want more of the device. */
  private subgroupsServe(reduces: readonly RowStepReduce[]): boolean {
    return this.plan.subgroups && !reduces.some((r) => r.parts.some(isWidePart));
  }

  /** Variables outside of `main`. */
  declare(): void {
    const { m, u32, plan } = this;
    const words = sharedWords(plan);
    if (words > 0) this.memory = m.shared(u32, words);
    if (!this.bySubgroup) return;
    m.need(capability.groupNonUniform).need(capability.groupNonUniformArithmetic);
    const make = (what: number): Id => {
      const id = m.variable(storageClass.input, u32);
      m.decorate(id, decoration.builtIn, what);
      return id;
    };
    this.builtIns = { size: make(builtIn.subgroupSize), count: make(builtIn.numSubgroups), id: make(builtIn.subgroupId), lane: make(builtIn.subgroupLocalInvocationId) };
  }
  /** The invocation's number in the workgroup. Neighbouring numbers are in one subgroup where a row may be one subgroup's. */
  enter(local: Id): Id {
    const { m, u32, plan, builtIns } = this;
    this.lane = local;
    if (!builtIns) return local;
    const [size, count, id, within] = [builtIns.size, builtIns.count, builtIns.id, builtIns.lane].map((v) => m.op(spv.load, u32, v)) as [Id, Id, Id, Id];
    const leads = m.op(spv.iEqual, m.bool(), within, m.u32(0));
    if (plan.across >= widestSubgroup) {
      this.runs = { count, first: m.u32(0), own: id, writes: leads, fits: undefined };
      return local;
    }
    const lane = m.op(spv.iAdd, u32, m.op(spv.iMul, u32, id, size), within);
    this.lane = lane;
    // Subgroups may be larger than the invocations of a row: then each invocation is a run of its own.
    const fits = m.op(spv.uLessThanEqual, m.bool(), size, m.u32(plan.across));
    const runsPerRow = m.op(spv.uDiv, u32, m.u32(plan.across), m.op(spv.select, u32, fits, size, m.u32(1)));
    const row = m.op(spv.shiftRightLogical, u32, lane, m.u32(Math.log2(plan.across)));
    this.runs = {
      count: runsPerRow,
      first: m.op(spv.iMul, u32, row, runsPerRow),
      own: m.op(spv.select, u32, fits, id, lane),
      writes: m.op(spv.logicalOr, m.bool(), leads, m.op(spv.logicalNot, m.bool(), fits)),
      fits,
    };
    return lane;
  }

  private combine(p: Part, a: Id, b: Id): Id {
    const { m } = this;
    const type = typeId(m, p.type);
    if (p.combination === "min" || p.combination === "max") return m.glsl(p.combination === "min" ? glsl.uMin : glsl.uMax, type, a, b);
    const isFloat = p.type === "f32" || p.type === "f64";
    const add = p.combination === "add";
    const id = m.op(add ? (isFloat ? spv.fAdd : spv.iAdd) : isFloat ? spv.fMul : spv.iMul, type, a, b);
    if (isFloat) m.decorate(id, decoration.noContraction);
    return id;
  }
  /** One partial result of two. */
  both(parts: readonly Part[], a: SharedParts, b: SharedParts): SharedParts {
    const { m } = this;
    const [key, index] = parts as [Part, Part | undefined];
    if (index?.combination !== "first") return parts.map((p, i) => this.combine(p, a[i] as Id, b[i] as Id));
    const [ak, ai, bk, bi] = [a[0], a[1], b[0], b[1]] as [Id, Id, Id, Id];
    const tie = m.op(spv.logicalAnd, m.bool(), m.op(spv.iEqual, m.bool(), ak, bk), m.op(spv.uLessThan, m.bool(), bi, ai));
    const better = m.op(spv.logicalOr, m.bool(), m.op(spv.uGreaterThan, m.bool(), bk, ak), tie);
    return [m.op(spv.select, typeId(m, key.type), better, bk, ak), m.op(spv.select, this.u32, better, bi, ai)];
  }
  /** One of several: pairs, then pairs of pairs. */
  tree(parts: readonly Part[], all: readonly SharedParts[]): SharedParts {
    let level = all;
    while (level.length > 1) {
      const next: SharedParts[] = [];
      for (let i = 0; i < level.length; i += 2) next.push(i + 1 < level.length ? this.both(parts, level[i] as SharedParts, level[i + 1] as SharedParts) : (level[i] as SharedParts));
      level = next;
    }
    return level[0] as SharedParts;
  }
  private identity(p: Part): Id {
    return constantId(this.m, p.type, p.identity);
  }
  orIdentity(parts: readonly Part[], valid: Id, ids: SharedParts): SharedParts {
    return parts.map((p, i) => this.m.op(spv.select, typeId(this.m, p.type), valid, ids[i] as Id, this.identity(p)));
  }
  /** Partial results in variables, which `fill` adds to. */
  running(reduces: readonly RowStepReduce[], fill: (add: (more: readonly SharedParts[]) => void) => void): SharedParts[] {
    const { m } = this;
    const variables = reduces.map((r) => r.parts.map((p) => m.local(typeId(m, p.type))));
    reduces.forEach((r, k) => r.parts.forEach((p, i) => m.emit(spv.store, (variables[k] as Id[])[i] as Id, this.identity(p))));
    const read = (k: number): Id[] => (reduces[k] as RowStepReduce).parts.map((p, i) => m.op(spv.load, typeId(m, p.type), (variables[k] as Id[])[i] as Id));
    fill((more) =>
      reduces.forEach((r, k) => {
        this.both(r.parts, read(k), more[k] as SharedParts).forEach((id, i) => m.emit(spv.store, (variables[k] as Id[])[i] as Id, id));
      }),
    );
    return reduces.map((_, k) => read(k));
  }

  wordsOf(reduces: readonly RowStepReduce[]): number {
    return partWords(reduces);
  }
  toWords(reduces: readonly RowStepReduce[], all: readonly SharedParts[]): Id[] {
    const { m, u32 } = this;
    return reduces.flatMap((r, k) =>
      r.parts.flatMap((p, i) => {
        const id = (all[k] as SharedParts)[i] as Id;
        if (p.type === "u32") return [id];
        if (p.type === "f32") return [m.op(spv.bitcast, u32, id)];
        const pair = m.op(spv.bitcast, m.vector(u32, 2), id);
        return [m.op(spv.compositeExtract, u32, pair, 0), m.op(spv.compositeExtract, u32, pair, 1)];
      }),
    );
  }
  fromWords(reduces: readonly RowStepReduce[], words: readonly Id[]): SharedParts[] {
    const { m, u32 } = this;
    let at = 0;
    const take = (p: Part): Id => {
      if (p.type === "u32") return words[at++] as Id;
      if (p.type === "f32") return m.op(spv.bitcast, typeId(m, "f32"), words[at++] as Id);
      const pair = m.op(spv.compositeConstruct, m.vector(u32, 2), words[at] as Id, words[at + 1] as Id);
      at += 2;
      return m.op(spv.bitcast, typeId(m, p.type), pair);
    };
    return reduces.map((r) => r.parts.map(take));
  }

  /** The partial results of a row's invocations become one, which all of them have. All invocations of the workgroup must take part. */
  across(reduces: readonly RowStepReduce[], own: readonly SharedParts[]): SharedParts[] {
    if (this.plan.across === 1) return [...own];
    return this.subgroupsServe(reduces) ? this.bySubgroups(reduces, own) : this.byHalves(reduces, own);
  }
  private cell(area: number, word: number, slot: Id): Id {
    const { m, u32, plan } = this;
    const base = (area * Math.max(...plan.phases.map(partWords)) + word) * plan.group;
    return m.op(spv.accessChain, m.pointer(storageClass.workgroup, u32), this.memory, base === 0 ? slot : m.op(spv.iAdd, u32, slot, m.u32(base)));
  }
  private barrier(): void {
    const { m } = this;
    m.emit(spv.controlBarrier, m.u32(scope.workgroup), m.u32(scope.workgroup), m.u32(sharedSemantics));
  }
  /** Each invocation with the one whose number differs in one bit, bit after bit: both get the same. */
  private byHalves(reduces: readonly RowStepReduce[], own: readonly SharedParts[]): SharedParts[] {
    const { m, u32, plan, lane } = this;
    let all = [...own];
    for (let s = plan.across / 2; s >= 1; s /= 2) {
      const area = this.turn++ & 1;
      this.toWords(reduces, all).forEach((word, w) => m.emit(spv.store, this.cell(area, w, lane), word));
      this.barrier();
      const other = m.op(spv.bitwiseXor, u32, lane, m.u32(s));
      const theirs = this.fromWords(reduces, Array.from({ length: partWords(reduces) }, (_, w) => m.op(spv.load, u32, this.cell(area, w, other))));
      all = reduces.map((r, k) => this.both(r.parts, all[k] as SharedParts, theirs[k] as SharedParts));
    }
    return all;
  }
  /** Subgroups, then what they have found. */
  private bySubgroups(reduces: readonly RowStepReduce[], own: readonly SharedParts[]): SharedParts[] {
    const { m, u32, flow } = this;
    const runs = this.runs as NonNullable<RowCombiner["runs"]>;
    const variables = reduces.map((r) => r.parts.map((p) => m.local(typeId(m, p.type))));
    const write = (all: readonly SharedParts[]): void => all.forEach((ids, k) => ids.forEach((id, i) => m.emit(spv.store, (variables[k] as Id[])[i] as Id, id)));
    const read = (): SharedParts[] => reduces.map((r, k) => r.parts.map((p, i) => m.op(spv.load, typeId(m, p.type), (variables[k] as Id[])[i] as Id)));
    const inSubgroup = (): void => write(reduces.map((r, k) => this.subgroup(r.parts, own[k] as SharedParts)));
    if (runs.fits === undefined) inSubgroup();
    else {
      write(own);
      flow.when(runs.fits, inSubgroup);
    }
    const area = this.turn++ & 1;
    const load = (slot: Id): SharedParts[] => this.fromWords(reduces, Array.from({ length: partWords(reduces) }, (_, w) => m.op(spv.load, u32, this.cell(area, w, slot))));
    flow.when(m.op(spv.uGreaterThan, m.bool(), runs.count, m.u32(1)), () => {
      const words = this.toWords(reduces, read());
      flow.when(runs.writes, () => words.forEach((word, w) => m.emit(spv.store, this.cell(area, w, runs.own), word)));
      this.barrier();
      write(load(runs.first));
      // All in the same order, so that all invocations have the same.
      flow.loop(m.op(spv.iAdd, u32, runs.first, m.u32(1)), m.op(spv.iAdd, u32, runs.first, runs.count), m.u32(1), (slot) => {
        const more = load(slot);
        const so = read();
        write(reduces.map((r, k) => this.both(r.parts, so[k] as SharedParts, more[k] as SharedParts)));
      });
    });
    return read();
  }
  private subgroup(parts: readonly Part[], ids: SharedParts): SharedParts {
    const { m } = this;
    const reduce = (op: number, p: Part, id: Id): Id => m.op(op, typeId(m, p.type), m.u32(scope.subgroup), 0, id);
    const [key, index] = parts as [Part, Part | undefined];
    if (index?.combination !== "first") return parts.map((p, i) => reduce(subgroupOps[p.combination as "add"][p.type === "f32" ? 1 : 0] as number, p, ids[i] as Id));
    const best = reduce(spv.groupNonUniformUMax, key, ids[0] as Id);
    const mine = m.op(spv.select, this.u32, m.op(spv.iEqual, m.bool(), ids[0] as Id, best), ids[1] as Id, m.u32(0xffffffff));
    return [best, reduce(spv.groupNonUniformUMin, index, mine)];
  }
}
/** Of unsigned integers, of floats. */
const subgroupOps: Readonly<Record<"add" | "mul" | "min" | "max", readonly number[]>> = {
  add: [spv.groupNonUniformIAdd, spv.groupNonUniformFAdd],
  mul: [spv.groupNonUniformIMul, spv.groupNonUniformFMul],
  min: [spv.groupNonUniformUMin],
  max: [spv.groupNonUniformUMax],
};
