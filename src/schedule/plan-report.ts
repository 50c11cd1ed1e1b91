/** Plans of graphs as data and as text: what an evaluation will do, in which order, and where. Nothing runs, and the graph stays as it is. */
import { ArrayDesc } from "../core/array.ts";
import { opError } from "../core/error.ts";
import type { Node } from "../core/op.ts";
import { formatShape } from "../core/shape.ts";
import { type Plan, type Stage, closeStage, openStage, standIn } from "./compiled.ts";
import { tapeOf } from "./plan.ts";
import { PlanRefused, type Slot } from "./plan-memory.ts";
import type { Item, Operand } from "./plan-record.ts";
import { Evaluation, descsOf, installPlanText, stats } from "./run.ts";

/** An array that a step reads or writes. */
export interface PlanOperand {
  /** Dtype and shape. */
  readonly array: string;
  /** Name of the buffer it lies in; none for a 0-d constant. */
  readonly buffer: string | undefined;
  /** Bytes that are moved, if every element is touched once. */
  readonly bytes: number;
}
/** One kernel, or a view. */
export interface PlanStep {
  readonly op: string;
  /** Ops that are computed inside it. */
  readonly fused: readonly string[];
  readonly kernel: string;
  readonly reads: readonly PlanOperand[];
  readonly writes: readonly PlanOperand[];
  readonly commands: number;
}
export interface PlanBuffer {
  /** `in0`: an array that is there already; `out0`: a result; `t0`: a temporary; `const0`: an array that an op's definition brings along. */
  readonly name: string;
  readonly bytes: number;
  /** Of a temporary: its place in the arena, and the temporaries that had these bytes before. */
  readonly at: number | undefined;
  readonly after: readonly string[];
  /** An input that is written over, because nobody else needs it. */
  readonly taken: boolean;
}
/** What an evaluation does. Bytes moved are those of kernels that touch each element once. */
export interface PlanReport {
  readonly steps: readonly PlanStep[];
  readonly buffers: readonly PlanBuffer[];
  readonly commands: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Of the memory that all temporaries share, and of all temporaries if each had its own. */
  readonly arenaBytes: number;
  readonly temporaryBytes: number;
  /** Fresh memory: arena and results. */
  readonly peakBytes: number;
}

const names = { input: "in", output: "out", constant: "const", temporary: "t" } as const;
const nameOf = (slot: Slot): string => `${names[slot.kind]}${slot.index}`;
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

function operandOf({ view, slot, bytes }: Operand): PlanOperand {
  return { array: `${view.dtype}${formatShape(view.shape)}${view.contiguous ? "" : " strided"}`, buffer: slot && nameOf(slot), bytes };
}
const stepOf = ({ op, fused, kernel, reads, writes, commands }: Item): PlanStep => ({ op, fused, kernel, reads: reads.map(operandOf), writes: writes.map(operandOf), commands });

function bufferOf(slot: Slot, all: readonly Slot[]): PlanBuffer {
  const temporary = slot.kind === "temporary";
  const before = temporary ? all.filter((s) => s.kind === "temporary" && s.bytes > 0 && s.to <= slot.from && s.offset < slot.offset + slot.bytes && slot.offset < s.offset + s.bytes) : [];
  return { name: nameOf(slot), bytes: slot.bytes, at: temporary ? slot.offset : undefined, after: before.map(nameOf), taken: slot.kind === "input" && slot.written };
}

/** A plan in a form for people and tests. */
export function reportOf(plan: Plan): PlanReport {
  const steps = plan.items.map(stepOf);
  const slots = [...plan.inputs.filter((s) => s !== undefined), ...plan.constants, ...plan.outputs, ...plan.temporaries];
  const { arenaBytes } = plan;
  return {
    steps,
    buffers: slots.map((s) => bufferOf(s, slots)),
    commands: plan.commands,
    bytesRead: sum(steps.flatMap((s) => s.reads.map((r) => r.bytes))),
    bytesWritten: sum(steps.flatMap((s) => s.writes.map((w) => w.bytes))),
    arenaBytes,
    temporaryBytes: sum(plan.temporaries.map((s) => s.bytes)),
    peakBytes: arenaBytes + sum(plan.outputs.map((s) => s.bytes)),
  };
}

/** How many nodes of a tape read each array. */
function readersIn(tape: readonly Node[]): Map<ArrayDesc, number> {
  const readers = new Map<ArrayDesc, number>();
  for (const node of tape) for (const d of node.inputs) readers.set(d, (readers.get(d) ?? 0) + 1);
  return readers;
}
/** The graph once more, on stand-ins for what is there already. What anybody else can see counts as held. */
function copyGraph(stage: Stage, tape: readonly Node[], targets: ReadonlySet<ArrayDesc>): { copies: Map<ArrayDesc, ArrayDesc>; inputs: (Slot | undefined)[] } {
  const readers = readersIn(tape);
  const copies = new Map<ArrayDesc, ArrayDesc>();
  const inputs: (Slot | undefined)[] = [];
  const held = (d: ArrayDesc): boolean => targets.has(d) || d.handles > 0 || d.consumers > (readers.get(d) ?? 0);
  const of = (d: ArrayDesc): ArrayDesc => {
    const known = copies.get(d);
    if (known) return known;
    const { desc, slot } = standIn(stage, d, inputs.length, !held(d) && d.storage?.refs === 1);
    inputs.push(slot);
    copies.set(d, desc);
    return desc;
  };
  for (const node of tape) {
    const from = node.inputs.map(of);
    for (const d of from) d.consumers++;
    const outputs = node.outputs.map((o) => ArrayDesc.lazy(o.shape, o.dtype));
    const copy: Node = { ...node, inputs: from, outputs };
    node.outputs.forEach((o, i) => {
      const d = outputs[i] as ArrayDesc;
      d.node = copy;
      if (held(o)) d.handles = 1;
      copies.set(o, d);
    });
  }
  return { copies, inputs };
}

/** The plan of what the arrays still need. */
export function planOf(targets: readonly ArrayDesc[]): Plan {
  const counted = { ...stats };
  try {
    return planGraph(targets);
  } finally {
    // Nothing of it was done.
    Object.assign(stats, counted);
  }
}
function planGraph(targets: readonly ArrayDesc[]): Plan {
  const tape = tapeOf(targets);
  const stage = openStage();
  const { copies, inputs } = copyGraph(stage, tape, new Set(targets));
  const results = targets.map((t) => copies.get(t)).filter((d) => d !== undefined);
  const evaluation = new Evaluation(false, undefined, stage.planner);
  evaluation.record(tapeOf(results));
  return closeStage(stage, inputs, results);
}

const operandText = ({ array, buffer }: PlanOperand): string => `${array} ${buffer ?? "constant"}`;
function stepText({ op, fused, kernel, reads, writes, commands }: PlanStep, i: number): string {
  const moved = sum([...reads, ...writes].map((o) => o.bytes));
  const what = `${op}${fused.length > 0 ? ` with ${fused.join(" ")}` : ""}`;
  const cost = commands === 0 ? "" : `, ${commands === 1 ? "1 command" : `${commands} commands`}, ${moved} bytes`;
  return `${String(i).padStart(4)} ${what}: ${reads.map(operandText).join(", ")} -> ${writes.map(operandText).join(", ")}: ${kernel}${cost}`;
}
function bufferText({ name, bytes, at, after, taken }: PlanBuffer): string {
  return `     ${name}: ${bytes} bytes${at === undefined ? "" : ` at ${at}`}${after.length > 0 ? `, which ${after.join(", ")} had before` : ""}${taken ? ", written over" : ""}`;
}
/** A plan as text, a line per step and per buffer. Equal plans give equal texts. */
export function formatPlan(report: PlanReport): string {
  const { steps, buffers, commands, bytesRead, bytesWritten, arenaBytes, temporaryBytes, peakBytes } = report;
  return [
    `plan: ${steps.length} steps, ${commands} commands, ${bytesRead} bytes read, ${bytesWritten} bytes written`,
    ...steps.map(stepText),
    `buffers: ${peakBytes} bytes of fresh memory, ${arenaBytes} of them for temporaries of ${temporaryBytes} bytes`,
    ...buffers.map(bufferText),
  ].join("\n");
}

/**
 * Says what an evaluation of the arrays in the trees (nested Arrays, objects) would do: kernels in order with the ops fused into them, the buffers that they read and write, and
 * which bytes are used again. Computes nothing and leaves the graph as it is.
 *
 * @returns data; `formatPlan` makes text of it
 * @throws when there can be no plan, because an op runs outside of the command lists
 */
export function plan(...trees: unknown[]): PlanReport {
  try {
    return reportOf(planOf(descsOf(trees)));
  } catch (error) {
    throw error instanceof PlanRefused ? opError("plan", `there is no plan of this: ${error.message}`) : error;
  }
}

installPlanText((targets) => {
  try {
    return formatPlan(reportOf(planOf(targets)));
  } catch (error) {
    return `plan: none: ${(error as Error).message}`;
  }
});
