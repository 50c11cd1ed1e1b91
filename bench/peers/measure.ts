/** Checks a library's answers on a small model, then lets it take turns with ours on a real one. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digits, ratios, spread, summarize } from "../harness.ts";
import { configs } from "../models/configs.ts";
import { randomStream } from "../models/synthetic.ts";
import { RemoteEngine, type Task, argmax } from "./engine.ts";
import { version } from "./installed.ts";
import { type Context, type LlmPeer, type Start, works } from "./peers.ts";
import { type Weights, referenceLogits } from "./reference.ts";
import type { LlmRow } from "./report.ts";

export interface Plan {
  readonly context: Context;
  readonly rounds: number;
  /** Time for a work's rounds, and the most that a single task may take, in milliseconds. */
  readonly workMs: number;
  readonly taskMs: number;
}

const startEngine = (s: Start): Promise<RemoteEngine> => RemoteEngine.start(s.script, s.args, s.options);

/** Prompts of printable characters' ids, which wllama takes too. */
export const checkPrompts: readonly (readonly number[])[] = Array.from({ length: 6 }, (_, p) => {
  const random = randomStream(100 + p);
  for (let i = 0; i < 16; i++) random();
  return Array.from({ length: 5 + p }, () => 33 + Math.floor(random() * 94));
});
/**
 * Each chosen token must be one that the float64 model likes as well as its own choice, up to `tolerance` of the logits' standard deviation: products with
 * inputs rounded to 8 bits are off by about a hundredth of it, a wrong model by all of it.
 */
const tolerance = 0.2;
export function checkTokens(name: string, weights: Weights, prompt: readonly number[], tokens: readonly number[]): void {
  const sequence = [...prompt];
  for (const token of tokens) {
    const logits = referenceLogits(configs["qwen3-tiny"], weights, sequence);
    const deviation = Math.sqrt(logits.reduce((s, x) => s + x * x, 0) / logits.length);
    const lost = (logits[argmax(logits)] as number) - (logits[token] ?? Number.NEGATIVE_INFINITY);
    if (!(lost <= tolerance * deviation)) throw new Error(`${name} chose token ${token} after ${sequence.join(" ")}; the float64 model has ${argmax(logits)}, ${digits(lost / deviation)} standard deviations above`);
    sequence.push(token);
  }
}

/** The small model in the library's own format, prompts in one piece and then token by token. */
export async function check(peer: LlmPeer, context: Context): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "mlx-vk-peers-"));
  try {
    const start = peer.start({ ...context, model: "qwen3-tiny", folder });
    const engine = await startEngine(start);
    try {
      const weights = start.weights();
      for (const prompt of checkPrompts) checkTokens(peer.name, weights, prompt, await engine.generate(prompt, 4));
    } finally {
      await engine.stop();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The same work for both, short enough: fewer tokens to decode where a library is slow. A short task first tells its speed, and warms it up. */
async function fitted(task: Task, theirs: RemoteEngine, plan: Plan): Promise<{ task: Task; milliseconds: number }> {
  const few = { ...task, tokens: Math.min(task.tokens, task.kind === "decode" ? 4 : 32) };
  const speed = await theirs.run(few);
  const tokens = task.kind === "decode" ? Math.max(4, Math.min(task.tokens, Math.round((speed * plan.taskMs) / 2000))) : task.tokens;
  const milliseconds = (1000 * tokens) / speed;
  if (milliseconds > plan.taskMs) throw new Error(`left out: ${tokens} tokens would take ${digits(milliseconds / 1000)} s at the speed of ${few.tokens}`);
  return { task: { ...task, tokens }, milliseconds };
}

async function turns(wanted: Task, ours: RemoteEngine, theirs: RemoteEngine, plan: Plan): Promise<Pick<LlmRow, "ours" | "theirs" | "ratio">> {
  const { task, milliseconds } = await fitted(wanted, theirs, plan);
  // A round of the same size warms both up; what takes seconds is warm after its first.
  await ours.run(task);
  if (milliseconds < 1000) await theirs.run(task);
  const a: number[] = [];
  const b: number[] = [];
  const start = performance.now();
  // No round begins that would end after the time.
  for (let i = 0; i < plan.rounds && (i === 0 || ((performance.now() - start) * (i + 1)) / i < plan.workMs); i++) {
    const [first, second] = i % 2 === 0 ? [ours, theirs] : [theirs, ours];
    const pair = [await first.run(task), await second.run(task)];
    if (i % 2 === 1) pair.reverse();
    a.push(pair[0] as number);
    b.push(pair[1] as number);
  }
  return { ours: summarize(a), theirs: summarize(b), ratio: ratios(a, b) };
}

const firstLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split("\n")[0]?.replace(/^(\w*Error: )+/, "") ?? "";

/** Rows of one library. What fails is a row with the reason. `ours` is open already, or why it is not. */
export async function measure(peer: LlmPeer, ours: RemoteEngine | string, plan: Plan, say: (row: LlmRow) => void): Promise<LlmRow[]> {
  const rows: LlmRow[] = [];
  const base = (work: string): Omit<LlmRow, "ratio"> => ({ device: peer.device, work, peer: peer.name, weights: peer.weights });
  const add = (row: LlmRow): void => {
    rows.push(row);
    say(row);
  };
  let theirs: RemoteEngine | undefined;
  try {
    if (version(peer.package) === undefined) throw new Error("not installed");
    if (typeof ours === "string") throw new Error(ours);
    await check(peer, plan.context);
    theirs = await startEngine(peer.start(plan.context));
  } catch (error) {
    for (const w of works) add({ ...base(w.name), reason: firstLine(error) });
    return rows;
  }
  for (const { name, ...task } of works) {
    try {
      const numbers = await turns(task, ours, theirs, plan);
      add({ ...base(name), ...(theirs.about === undefined ? {} : { about: theirs.about }), ...numbers, peakMiB: Math.round(theirs.peakBytes / 2 ** 20) });
    } catch (error) {
      add({ ...base(name), reason: firstLine(error) });
    }
  }
  await theirs.stop();
  return rows;
}

/** Opens ours, checked; or the reason why that can not be. */
export async function openOurs(peer: LlmPeer, context: Context): Promise<RemoteEngine | string> {
  try {
    await check(peer, context);
    return await startEngine(peer.start(context));
  } catch (error) {
    if (peer.device === "cpu") throw error;
    return `ours does not open the device: ${firstLine(error)}`;
  }
}

export const rowText = (r: LlmRow): string =>
  `${r.work.padEnd(12)} ${`${r.peer} (${r.weights})`.padEnd(56)} ${r.ratio && r.ours && r.theirs ? `${spread(r.ratio)} times as fast; ours ${spread(r.ours)}, theirs ${spread(r.theirs)} tok/s; ${r.about ?? ""}, ${r.peakMiB} MiB` : `- ${r.reason}`}`;
