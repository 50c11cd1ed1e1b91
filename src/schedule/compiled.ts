/**
 * Plans of compiled functions. The body of a call is recorded once, without memory, for each kind of inputs; what comes out is data: words of commands, where addresses
 * go in them, and how much memory lies where. Evaluating a call copies the words into the list, puts the addresses in, and is done.
 */
import { ArrayDesc } from "../core/array.ts";
import type { Body } from "../core/body.ts";
import { inlineBody } from "../core/body.ts";
import type { Node } from "../core/op.ts";
import type { Storage } from "../core/storage.ts";
import type { Placed } from "../backend/vulkan/encode.ts";
import type { Switches } from "./gate.ts";
import { closedKernels } from "./gate.ts";
import { tapeOf } from "./plan.ts";
import { type GpuPlan, GpuPlanRecorder, appendPlan, encodePlan } from "./plan-gpu.ts";
import { PlanRefused, type Slot, placeInArena } from "./plan-memory.ts";
import { type Item, PlanRecorder, type Relocation } from "./plan-record.ts";
import { type Recorder, commandEnd, scalarBits } from "./record.ts";
import { tuneChanges } from "./tune.ts";
import type { GpuRecorder } from "./record-gpu.ts";
import { Evaluation, type Planner, installBodyRunner, stats } from "./run.ts";

/** Commands for the CPU that stand together in a list. */
interface Piece {
  readonly words: Int32Array;
  /** Words that get an address: the base `of` (0: the list) plus `bytes`. */
  readonly at: Int32Array;
  readonly of: Int32Array;
  readonly bytes: Float64Array;
  /** Pairs of a word and the input whose bits, as a 0-d constant, go there and behind it. */
  readonly scalars: Int32Array;
}
/** Where an output lies. */
interface Result {
  readonly slot: Slot;
  readonly strides: readonly number[];
  /** To the first element; from that of an input. */
  readonly bytes: number;
}
export interface Plan {
  readonly items: readonly Item[];
  readonly commands: number;
  readonly inputs: readonly (Slot | undefined)[];
  readonly constants: readonly Slot[];
  /** Storages of results that take no input's place. */
  readonly outputs: readonly Slot[];
  readonly temporaries: readonly Slot[];
  readonly arenaBytes: number;
  /** By output; undefined for one that nobody sees. */
  readonly results: readonly (Result | undefined)[];
  readonly pieces: readonly Piece[];
  readonly gpu: GpuPlan | undefined;
}

/** Most words of a piece. */
const mostWords = 1 << 16;
/** Of temporaries on the CPU and on the GPU, as fresh arrays have it there. */
const alignments = { cpu: 64, gpu: 256 } as const;

/** Numbers of the bases that addresses count from: the list, the arena, inputs, constants, outputs. */
function baseOf(slot: Slot | undefined, inputs: number, constants: number): number {
  switch (slot?.kind) {
    case undefined: return 0;
    case "temporary": return 1;
    case "input": return 2 + slot.index;
    case "constant": return 2 + inputs + slot.index;
    case "output": return 2 + inputs + constants + slot.index;
  }
}

/** Cuts the commands where no piece gets too long. */
function cut(recorder: PlanRecorder, inputs: number, constants: number): Piece[] {
  const { written: words, relocations, scalars } = recorder;
  const ends: number[] = [];
  let start = 0;
  for (let at = 0; at < words.length; ) {
    const next = commandEnd(words, at);
    if (next - start > mostWords && at > start) {
      ends.push(at);
      start = at;
    }
    at = next;
  }
  if (words.length > 0) ends.push(words.length);
  let from = 0;
  return ends.map((end) => {
    const first = from;
    from = end;
    const own = relocations.filter((r) => r.at >= first && r.at < end);
    const bytes = (r: Relocation): number => (r.slot === undefined ? r.bytes - 4 * first : r.bytes + (r.slot.kind === "temporary" ? r.slot.offset : 0));
    return {
      words: words.slice(first, end),
      at: Int32Array.from(own, (r) => r.at - first),
      of: Int32Array.from(own, (r) => baseOf(r.slot, inputs, constants)),
      bytes: Float64Array.from(own, bytes),
      scalars: Int32Array.from(scalars.filter((s) => s.at >= first && s.at < end).flatMap((s) => [s.at - first, s.input])),
    };
  });
}

/** Arrays that stand for those of a graph while it is planned. */
export interface Stage {
  readonly recorder: PlanRecorder;
  readonly planner: Planner;
  gpu: GpuPlanRecorder | undefined;
}
export function openStage(): Stage {
  const recorder = new PlanRecorder();
  const refuse = (why: string): never => {
    throw new PlanRefused(why);
  };
  const stage: Stage = {
    recorder,
    gpu: undefined,
    planner: {
      recorder,
      gpu: () => {
        stage.gpu ??= new GpuPlanRecorder(recorder.memory, recorder.constants);
        recorder.gpu = stage.gpu;
        return stage.gpu;
      },
      recorded: (...what) => recorder.log.recorded(...what),
      copied: (...what) => recorder.log.copied(...what),
      refuse,
    },
  };
  return stage;
}

/** Stands for an evaluated array or a constant. `donated`: nobody else needs it. */
export function standIn({ recorder }: Stage, d: ArrayDesc, index: number, donated: boolean): { desc: ArrayDesc; slot: Slot | undefined } {
  if (!d.storage) {
    const desc = ArrayDesc.constant(d.scalar as number, d.dtype);
    desc.handles = 1;
    recorder.constants.set(desc, index);
    return { desc, slot: undefined };
  }
  const { size } = d.dtype;
  // Kernels may be chosen by the alignment of the first element, and by nothing else of its address.
  const start = (d.offset * size) % 16;
  const desc = ArrayDesc.lazy(d.shape, d.dtype);
  const storage = recorder.memory.input(index, d.storage.bytes, start);
  desc.place(storage, d.strides, start / size);
  if (!donated) desc.handles = 1;
  return { desc, slot: recorder.memory.of(storage) };
}

/** Ends a plan: `results` are the arrays that it computes, undefined for those that nobody sees. */
export function closeStage({ recorder, gpu, planner }: Stage, inputs: readonly (Slot | undefined)[], results: readonly (ArrayDesc | undefined)[]): Plan {
  recorder.flush(true);
  if (recorder.commands > 0 && gpu) planner.refuse("parts of it run on the CPU and parts on the GPU");
  const { memory } = recorder;
  const placed = results.map((d): Result | undefined => {
    if (!d?.storage) return undefined;
    const slot = memory.of(d.storage);
    return { slot, strides: d.strides, bytes: d.offset * d.dtype.size - slot.start };
  });
  const { outputs, constants, temporaries } = memory.finish();
  const arenaBytes = placeInArena(temporaries, alignments[gpu ? "gpu" : "cpu"]);
  const [n, c] = [inputs.length, constants.length];
  return {
    items: recorder.log.items, commands: recorder.commands + (gpu?.commands ?? 0), inputs, constants, outputs, temporaries, arenaBytes, results: placed,
    pieces: cut(recorder, n, c), gpu: gpu && encodePlan(gpu, (slot) => baseOf(slot, n, c)),
  };
}

const isUsed = (d: ArrayDesc): boolean => d.handles > 0 || d.consumers > 0;

/** Longer bodies are not planned: placing the temporaries takes the square of their number, and the words megabytes. */
const mostSteps = 1 << 15;

/** Plans the body of a node. */
function planBody(node: Node, body: Body, donated: (d: ArrayDesc) => boolean): Plan {
  if (body.steps.length > mostSteps) throw new PlanRefused(`it has ${body.steps.length} steps, plans have at most ${mostSteps}`);
  const stage = openStage();
  const inputs = node.inputs.map((d, i) => standIn(stage, d, i, donated(d)));
  for (const { desc } of inputs) desc.consumers++;
  const results = node.outputs.map((o) => {
    const d = ArrayDesc.lazy(o.shape, o.dtype);
    if (isUsed(o)) d.handles = 1;
    return d;
  });
  inlineBody({ ...node, inputs: inputs.map((i) => i.desc), outputs: results }, body);
  const evaluation = new Evaluation(false, undefined, stage.planner);
  evaluation.record(tapeOf(results.filter(isUsed)));
  return closeStage(
    stage,
    inputs.map((i) => i.slot),
    results.map((d) => (isUsed(d) ? d : undefined)),
  );
}

/** What a plan was made for: the layouts of the inputs, which of them may be written over, which outputs anybody sees. */
function signatureOf(node: Node, donated: (d: ArrayDesc) => boolean, into: number[]): number {
  let n = 0;
  for (const d of node.inputs) {
    const { storage } = d;
    into[n++] = Number(d.contiguous) + 2 * Number(storage !== undefined) + (storage && donated(d) ? 4 : 0) + 8 * ((d.offset * d.dtype.size) % 16);
    if (!d.contiguous) for (const s of d.strides) into[n++] = s;
  }
  for (const o of node.outputs) into[n++] = Number(isUsed(o));
  return n;
}

/** A plan, or why there is none, for one kind of inputs. */
interface Entry {
  readonly signature: readonly number[];
  readonly switches: Switches;
  /** Kernels that the driver could not make when it was planned. */
  readonly closed: number;
  /** Changes of measured choices until then. */
  readonly choices: number;
  readonly plan: Plan | string;
}
const mostPlans = 16;

const scratch: number[] = [];
function find(entries: Entry[], length: number, switches: Switches): Entry | undefined {
  for (let i = entries.length - 1; i >= 0; i--) {
    const e = entries[i] as Entry;
    if (e.signature.length !== length || e.switches !== switches || e.closed !== closedKernels.size || e.choices !== tuneChanges.count) continue;
    if (typeof e.plan !== "string" && e.plan.gpu?.backend.lost) continue;
    let at = 0;
    while (at < length && e.signature[at] === scratch[at]) at++;
    if (at < length) continue;
    if (i < entries.length - 1) entries.push(...entries.splice(i, 1));
    return e;
  }
  return undefined;
}
function entryFor(node: Node, body: Body, evaluation: Evaluation): { entry: Entry; made: boolean } {
  body.plans ??= [];
  const entries = body.plans as Entry[];
  const { switches } = evaluation;
  const donated = (d: ArrayDesc): boolean => evaluation.reusable(d);
  const length = signatureOf(node, donated, scratch);
  const known = find(entries, length, switches);
  if (known) return { entry: known, made: false };
  const signature = scratch.slice(0, length);
  let plan: Plan | string;
  try {
    plan = planBody(node, body, donated);
  } catch (error) {
    // What is an error op by op comes out there, as the error that it is.
    plan = (error as Error).message;
  }
  const entry: Entry = { signature, switches, closed: closedKernels.size, choices: tuneChanges.count, plan };
  entries.push(entry);
  if (entries.length > mostPlans) entries.shift();
  return { entry, made: true };
}

/** Memory for a run of a plan. */
interface Taken<T> {
  readonly outputs: readonly Storage[];
  readonly arena: T | undefined;
}
/** Takes it; undefined when there is too little. */
function take<T>(plan: Plan, storage: (bytes: number) => Storage, arena: (bytes: number) => T): Taken<T> | undefined {
  const outputs: Storage[] = [];
  try {
    for (const { bytes } of plan.outputs) {
      const s = storage(bytes);
      s.retain();
      outputs.push(s);
    }
    return { outputs, arena: plan.arenaBytes > 0 ? arena(plan.arenaBytes) : undefined };
  } catch {
    for (const s of outputs) s.release();
    return undefined;
  }
}
/** Tells the storages that a plan writes where their bytes are right now. */
function wrote(plan: Plan, { inputs }: Node, outputs: readonly Storage[], tell: (s: Storage) => void): void {
  plan.inputs.forEach((slot, i) => {
    if (slot?.written) tell(inputs[i]?.storage as Storage);
  });
  for (const s of outputs) tell(s);
}
function placeResults(plan: Plan, node: Node, outputs: readonly Storage[]): void {
  node.outputs.forEach((o, i) => {
    const result = plan.results[i];
    if (result) placeResult(o, result, node.inputs, outputs);
  });
}

const bases: number[] = [];
/** Appends the commands of a plan to the list of the CPU. False when memory does not suffice. */
function runOnCpu(plan: Plan, node: Node, recorder: Recorder): boolean {
  const { inputs } = node;
  const work = plan.pieces.length > 0;
  if (work) for (const { storage } of inputs) if (storage && !storage.hostValid) storage.needHost();
  const held = (bytes: number): Storage => {
    const s = recorder.storage(bytes);
    s.retain();
    return s;
  };
  const taken = take(plan, (n) => recorder.storage(n), held);
  if (!taken) return false;
  const { outputs, arena } = taken;
  try {
    let n = 1;
    bases[n++] = arena?.address ?? 0;
    for (const d of inputs) bases[n++] = work && d.storage ? d.address : 0;
    for (const { storage } of plan.constants) bases[n++] = (storage as Storage).address;
    for (const s of outputs) bases[n++] = s.address;
    wrote(plan, node, outputs, (s) => s.wroteHost());
    recorder.append(
      plan.pieces.map((p) => p.words),
      (i, start, words) => putAddresses(plan.pieces[i] as Piece, start, words, inputs),
    );
    recorder.commands += plan.commands;
    placeResults(plan, node, outputs);
  } finally {
    arena?.release();
    for (const s of outputs) s.release();
  }
  return true;
}

/** Appends the commands of a plan to the list of the GPU. False when memory does not suffice. */
function runOnGpu(plan: Plan, gpu: GpuPlan, node: Node, recorder: GpuRecorder): boolean {
  const { backend } = recorder;
  const memoryOf = (s: Storage): Placed => ({ memory: backend.resident(s).memory, bytes: 0 });
  const taken = take(plan, (n) => recorder.storage(n), (n) => backend.scratch(n));
  if (!taken) return false;
  const { outputs, arena } = taken;
  try {
    // Copies to the device come before the plan's own commands.
    const places: (Placed | undefined)[] = [undefined, arena && { memory: arena, bytes: 0 }];
    for (const d of node.inputs) places.push(d.storage && { ...memoryOf(d.storage), bytes: d.offset * d.dtype.size });
    for (const { storage } of plan.constants) places.push(memoryOf(storage as Storage));
    for (const s of outputs) places.push(memoryOf(s));
    if (gpu.stream.length > 0) recorder.commands += appendPlan(gpu, places, node.inputs);
    wrote(plan, node, outputs, (s) => s.wroteDevice());
    placeResults(plan, node, outputs);
  } finally {
    if (arena) backend.freeScratch(arena);
    for (const s of outputs) s.release();
  }
  return true;
}
function putAddresses({ at, of, bytes, scalars }: Piece, start: number, words: Int32Array, inputs: readonly ArrayDesc[]): void {
  bases[0] = 4 * start;
  for (let i = 0; i < at.length; i++) words[start + (at[i] as number)] = (bases[of[i] as number] as number) + (bytes[i] as number);
  for (let i = 0; i < scalars.length; i += 2) {
    const to = start + (scalars[i] as number);
    const [lo, hi] = scalarBits(inputs[scalars[i + 1] as number] as ArrayDesc);
    words[to] = lo;
    words[to + 1] = hi;
  }
}
function placeResult(o: ArrayDesc, { slot, strides, bytes }: Result, inputs: readonly ArrayDesc[], outputs: readonly Storage[]): void {
  if (slot.kind === "input") {
    const from = inputs[slot.index] as ArrayDesc;
    o.place(from.storage as Storage, strides, (from.offset * from.dtype.size + bytes) / o.dtype.size);
    // A plan of nothing but views has no commands and no epoch of its own.
    o.epoch = from.epoch;
  } else o.place(slot.kind === "constant" ? (slot.storage as Storage) : (outputs[slot.index] as Storage), strides, bytes / o.dtype.size);
}

function run(plan: Plan, node: Node, evaluation: Evaluation): boolean {
  if (!plan.gpu) return runOnCpu(plan, node, evaluation.recorder);
  const recorder = evaluation.gpuRecorder();
  const done = runOnGpu(plan, plan.gpu, node, recorder);
  if (done) for (const o of node.outputs) if (o.storage) recorder.produces(o);
  if (recorder.backend.ripe) recorder.flush();
  return done;
}

installBodyRunner((node, body, evaluation) => {
  const { entry, made } = entryFor(node, body, evaluation);
  const { plan } = entry;
  const why = typeof plan === "string" ? plan : run(plan, node, evaluation) ? undefined : "there is too little memory for it";
  if (evaluation.switches.debug >= 2 && typeof plan !== "string") process.stderr.write(`  ${node.op.name}: by a plan ${made ? "made now" : "made before"}: ${plan.items.length} steps, ${plan.commands} commands\n`);
  if (why !== undefined) stats.plansRefused++;
  else if (made) stats.plansMade++;
  else stats.plansReused++;
  return why;
});
